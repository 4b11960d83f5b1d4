"""What is installed in a host: the record of it, and how every file of it stands."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.core.version import __version__
from effort_finetune.host import marked_blocks
from effort_finetune.host.host import Host
from effort_finetune.install.patches import Patch, load_patches

MANIFEST = ".effort-finetune.json"

#: Every file that any version has added to a host or put lines into. A record comes with the checkout, which
#: may be anybody's: nothing else is ever written or deleted because a record says so.
KNOWN = frozenset(
    [
        "training/config/detector/effort_finetune.yaml",
        "training/detectors/__init__.py",
        "training/detectors/effort_finetune_detector.py",
        "training/evaluate_finetune.py",
        "training/finetune.py",
        "training/metrics/utils.py",
        "training/test.py",
        "training/train.py",
    ]
)

#: States of an installed file that ask for nothing.
FINE_STATES = frozenset({"ok", "edited beside", "your version", "not ours", "does not fit"})


@dataclass(frozen=True)
class Replaced:
    """A file of the user's that ``install --replace`` took the place of.

    Attributes:
        content: Its bytes, which ``uninstall`` puts back.
    """

    content: bytes


@dataclass
class Record:
    """What an installation did to a host.

    Attributes:
        version: Of the plugin that did it; ``None`` where there is no record.
        patched: File -> hash before (``before``) and after (``after``), and the lines of each block by name.
        created: File -> hash of what was added.
        replaced: File -> what was there before. They are in ``created`` too.
        left: File -> why nothing was installed there.
        folders: Folders that were made for added files.
    """

    version: str | None = None
    patched: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, Replaced] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    def to_bytes(self, host: Host) -> bytes:
        """Returns the record as it is written."""
        tree = {
            "about": "Written by effort-finetune; `effort-finetune uninstall` reads it. Do not edit.",
            "version": __version__,
            "host": {"commit": host.commit},
            "patched": self.patched,
            "created": self.created,
            "replaced": {
                path: base64.b64encode(each.content).decode() for path, each in self.replaced.items()
            },
            "left": self.left,
            "folders": self.folders,
        }
        return (json.dumps(tree, indent=1) + "\n").encode()


@dataclass(frozen=True)
class FileState:
    """How one file of an installation stands.

    Attributes:
        path: Relative to the host's root.
        state: ``ok``; ``edited beside`` (a patched file with edits outside our block), ``your version`` (an
            added file that was edited), ``not ours`` (a file of the user's with the name of one of ours) and
            ``does not fit`` (the host's file cannot hold the block), which are fine; ``outdated`` (by another
            version of the plugin), ``edited`` (inside a block), ``missing``; ``not installed``.
    """

    path: str
    state: str


def is_installed(record: Record, files: Iterable[FileState]) -> bool:
    """Tells whether anything of the plugin is in a host, by its record or without one."""
    none = ("not installed", "not ours", "does not fit")
    return record.version is not None or any(file.state not in none for file in files)


def status(host: Host) -> list[FileState]:
    """Compares every patched and created file with the record and with this version of the plugin."""
    record = read_record(host.root)
    states = []
    for patch in shipped_patches():
        states.append(FileState(patch.file, _patched_state(host.root / patch.file, record, patch)))
    for source, path in resources.overlay():
        states.append(FileState(path, _created_state(host.root / path, record, path, source.read_bytes())))
    return states


def read_record(root: Path) -> Record:
    """Returns the record of an installation, empty when there is none.

    Raises:
        UserError: If the file is damaged, or names a file that no installation touches.
    """
    path = root / MANIFEST
    if not path.is_file():
        return Record()
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        patched, created = _mapping(tree, "patched"), _mapping(tree, "created")
        replaced, left = _mapping(tree, "replaced", {}), _mapping(tree, "left", {})
        for name, entry in patched.items():
            if not {"before", "after", "blocks"} <= set(entry):
                raise ValueError(f"{name} needs before, after and blocks")
        for name in (*patched, *created, *replaced, *left):
            if name not in KNOWN:
                raise ValueError(f"{name!r} is no file of an installation")
        folders = [str(name) for name in tree.get("folders", [])]
        if not set(folders) <= {str(parent) for name in KNOWN for parent in Path(name).parents}:
            raise ValueError("it names folders of no installation")
        old = {name: Replaced(base64.b64decode(content, validate=True)) for name, content in replaced.items()}
        return Record(str(tree["version"]), patched, created, old, left, folders)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged", got=error, next_step="delete it and run effort-finetune install again"
        ) from error


def _mapping(tree: Any, key: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    value = tree[key] if default is None else tree.get(key, default)
    if not isinstance(value, dict):
        raise TypeError(f"{key!r} must be an object")
    return value


def _patched_state(path: Path, record: Record, patch: Patch) -> str:
    recorded = record.patched.get(patch.file)
    if patch.file in record.left and recorded is None:
        return "does not fit"
    content = read_bytes(path)
    if content is None:
        return "missing" if recorded else "does not fit"
    try:
        found = {block.name: block.text for block in marked_blocks.find_blocks(content)}
    except UserError:
        return "edited"
    if not found:
        return "missing" if recorded else "not installed"
    if found != expected_blocks(None, patch):
        return "outdated" if found == expected_blocks(recorded, patch) else "edited"
    return "ok" if recorded is None or sha256_bytes(content) == recorded["after"] else "edited beside"


def _created_state(file: Path, record: Record, path: str, ours: bytes) -> str:
    recorded, content = record.created.get(path), read_bytes(file)
    if content is None:
        return "missing" if recorded else "not installed"
    if content == ours:
        return "ok"
    if recorded is None:
        return "not ours"
    if path in record.replaced and content == record.replaced[path].content:
        return "missing"
    return "outdated" if sha256_bytes(content) == recorded else "your version"


def expected_blocks(recorded: Mapping[str, Any] | None, patch: Patch | None) -> dict[str, tuple[str, ...]]:
    """Returns the lines of each block by name: as recorded at installation, else as this version has them."""
    if recorded is not None:
        return {name: tuple(text) for name, text in recorded["blocks"].items()}
    return {"": patch.lines} if patch is not None else {}


def shipped_patches() -> list[Patch]:
    """Returns the blocks that this version of the plugin ships."""
    return load_patches(resources.blocks())


def read_bytes(path: Path) -> bytes | None:
    """Returns a file's content, ``None`` where there is no file."""
    return path.read_bytes() if path.is_file() else None


def sha256_bytes(content: bytes) -> str:
    """Returns the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
