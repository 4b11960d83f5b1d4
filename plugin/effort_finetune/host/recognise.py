"""What a DeepfakeBench tree looks like, and which of the three known ones a folder is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from effort_finetune.core.errors import UserError

HostKind = Literal["embedded", "deepfakebench", "effort-fork"]

#: A host offers all of these, whatever its revision.
REQUIRED = (
    "training/train.py",
    "training/test.py",
    "training/dataset/abstract_dataset.py",
    "training/metrics/utils.py",
    "training/trainer/trainer.py",
    "training/detectors/__init__.py",
    "training/config/train_config.yaml",
    "training/config/test_config.yaml",
)

#: Present in the embedded host alone; names it, so that a copy of the tree is recognised too.
EMBEDDED_MARK = "training/embedded_host.txt"


@dataclass(frozen=True)
class Kind:
    """One known kind of host.

    Attributes:
        kind: Its short name in results.
        title: Its name for people.
        registry_module: Where its ``DETECTOR``, ``TRAINER``, ``BACKBONE`` and ``LOSSFUNC`` live, by
            upstream's module name with ``training/`` on the path. The fork keeps a second, unused copy
            in ``metrics.registry``.
    """

    kind: HostKind
    title: str
    registry_module: str


EMBEDDED = Kind("embedded", "embedded DeepfakeBench", "metrics.registry")
DEEPFAKEBENCH = Kind("deepfakebench", "SCLBD/DeepfakeBench v2", "metrics.registry")
EFFORT_FORK = Kind("effort-fork", "DeepfakeBench of the Effort authors' fork", "utils.registry")


def is_host(folder: Path) -> bool:
    """Tells whether ``folder`` has the two files by which a host is found from inside it."""
    return (folder / "training/dataset/abstract_dataset.py").is_file() and (
        folder / "training/metrics/utils.py"
    ).is_file()


def recognise(root: Path) -> Kind:
    """Returns the kind of the host at ``root``.

    Raises:
        UserError: If ``root`` is no folder, or lacks a file that every host has; the missing files are
            named, and a host one level deeper is suggested.
    """
    if not root.is_dir():
        raise UserError("host", got=f"{root}, which is no folder", expected="a DeepfakeBench checkout")
    missing = [name for name in REQUIRED if not (root / name).is_file()]
    if missing:
        inside = next((child for child in sorted(root.iterdir()) if is_host(child)), None)
        raise UserError(
            f"{root} is no DeepfakeBench that the plugin knows",
            got=f"no {', '.join(missing)}",
            expected="SCLBD/DeepfakeBench v2, the Effort authors' fork, or the embedded host",
            next_step=f"did you mean {inside}?" if inside else "give the folder that holds training/",
        )
    if (root / EMBEDDED_MARK).is_file():
        return EMBEDDED
    if (root / "training/utils/registry.py").is_file():
        return EFFORT_FORK
    if (root / "training/metrics/registry.py").is_file():
        return DEEPFAKEBENCH
    raise UserError(
        f"{root} is no DeepfakeBench that the plugin knows",
        got="neither training/metrics/registry.py nor training/utils/registry.py",
        expected="a host whose DETECTOR registry lives in one of them",
    )
