"""What a DeepfakeBench tree looks like, told from its files, and what another tree is instead."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from effort_finetune.core.errors import UserError

#: What makes a tree a DeepfakeBench v2, whatever was edited in it.
REQUIRED = ("training/detectors/__init__.py", "training/config/train_config.yaml")

#: Present in the embedded host alone; names it, so that a copy of the tree is recognised too.
EMBEDDED_MARK = "training/embedded_host.txt"

#: Where hosts keep ``DETECTOR``, ``TRAINER``, ``BACKBONE`` and ``LOSSFUNC``, by module name with
#: ``training/`` on the path. A tree that has both uses the first; the other is a copy.
_REGISTRIES = ("utils.registry", "metrics.registry")


@dataclass(frozen=True)
class Facts:
    """What a host's files say.

    Attributes:
        embedded: Whether it is the embedded host or a copy of it.
        registry_module: Where its detectors are registered, by upstream's module name with ``training/``
            on the path; ``None`` where no file tells.
    """

    embedded: bool
    registry_module: str | None


def is_host(folder: Path) -> bool:
    """Tells whether ``folder`` holds a DeepfakeBench v2."""
    return all((folder / name).is_file() for name in REQUIRED)


def hosts_below(folder: Path) -> list[Path]:
    """Returns the hosts that lie exactly one folder down, sorted by name."""
    try:
        return [child for child in sorted(folder.iterdir()) if is_host(child)]
    except OSError:
        return []


def recognise(root: Path) -> Facts:
    """Looks at the host at ``root``.

    Raises:
        UserError: If ``root`` is no folder or no DeepfakeBench v2; the message says what it is instead.
    """
    if not root.is_dir():
        raise UserError("host", got=f"{root}, which is no folder", expected="a DeepfakeBench checkout")
    if not is_host(root):
        missing = ", ".join(name for name in REQUIRED if not (root / name).is_file())
        got, next_step = _instead(root)
        raise UserError(
            f"{root} is no DeepfakeBench v2",
            got=f"no {missing}{got}",
            expected="a checkout with training/detectors and training/config",
            next_step=next_step,
        )
    return Facts((root / EMBEDDED_MARK).is_file(), _registry_module(root / "training"))


def _instead(root: Path) -> tuple[str, str]:
    """What a tree that is no host is (added to what is missing), and what to do about it."""
    inside = hosts_below(root)
    if inside:
        return "", f"did you mean {' or '.join(map(str, inside))}?"
    by_path = "or name your data by its folder: --train_dataset FOLDER"
    if is_host(root.parent):
        return "", f"give the folder above it: {root.parent}"
    if (root / "training/utils/registry.py").is_file():
        return (
            ": a DeepfakeBench v1, of before April 2024",
            f"update the checkout to SCLBD/DeepfakeBench's main branch, {by_path}",
        )
    if (root / "backbones").is_dir() and (root / "detectors").is_dir():
        return ": a DeepfakeBench-MM (audio and video)", f"use a checkout of SCLBD/DeepfakeBench, {by_path}"
    if (root / "detectors").is_dir() and (root / "config").is_dir():
        return (
            ": its folders lie in the root",
            "move them into a folder training/, as DeepfakeBench v2 has it",
        )
    return "", "give the folder that holds training/"


def _registry_module(training: Path) -> str | None:
    """The module that the host's detectors import ``DETECTOR`` from, else the one that is there."""
    there = [name for name in _REGISTRIES if training.joinpath(*name.split(".")).with_suffix(".py").is_file()]
    for imported in _registry_imports(training / "detectors/__init__.py"):
        for name in there:
            if imported == name or imported.endswith(f".{name}"):
                return name
    return there[0] if there else None


def _registry_imports(file: Path) -> Iterator[str]:
    """The modules that ``file`` imports ``DETECTOR`` from."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "DETECTOR" for alias in node.names):
            yield node.module or ""
