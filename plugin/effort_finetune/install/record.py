"""What is installed in a host: the record of it, and how every file of it stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.host import marked_blocks
from effort_finetune.host.host import Host
from effort_finetune.install import patches as patching

MANIFEST = ".effort-finetune.json"

#: States of an installed file that ask for nothing.
FINE_STATES = frozenset({"ok", "edited beside", "your version"})


@dataclass(frozen=True)
class FileState:
    """How one file of an installation stands.

    Attributes:
        path: Relative to the host's root.
        state: ``ok``; ``edited beside`` (a patched file with edits outside our blocks) and ``your version``
            (an overlay file that was edited), which are fine; ``outdated`` (by another version of the
            plugin); ``edited`` (inside a block), ``missing``; ``not installed``, and ``not ours`` (a file of
            the user's with the name of one of the overlay's).
    """

    path: str
    state: str


def is_installed(record: Mapping[str, Any], files: Iterable[FileState]) -> bool:
    """Tells whether anything of the plugin is in a host, by its record or without one."""
    return bool(record) or any(file.state not in ("not installed", "not ours") for file in files)


def status(host: Host) -> list[FileState]:
    """Compares every patched and created file with the record and with this version of the plugin."""
    record = read_record(host.root)
    states = []
    for patch in load_patches():
        recorded = record.get("patched", {}).get(patch.file)
        states.append(FileState(patch.file, _patched_state(host.root / patch.file, recorded, patch)))
    for source, path in resources.overlay():
        recorded = record.get("created", {}).get(path)
        content = read_bytes(host.root / path)
        if content is None:
            state = "missing" if recorded else "not installed"
        elif content == source.read_bytes():
            state = "ok"
        elif recorded is None:
            state = "not ours"
        else:
            state = "outdated" if sha256_bytes(content) == recorded else "your version"
        states.append(FileState(path, state))
    return states


def read_record(root: Path) -> dict[str, Any]:
    """Returns the record of an installation, empty when there is none.

    Raises:
        UserError: If the file is damaged.
    """
    path = root / MANIFEST
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["patched"], dict) or not isinstance(record["created"], dict):
            raise TypeError("'patched' and 'created' must be objects")
        for path, entry in record["patched"].items():
            if not {"before", "after", "blocks"} <= set(entry):
                raise ValueError(f"{path} needs before, after and blocks")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged", got=error, next_step="delete it and run effort-finetune install again"
        ) from error
    return record


def _patched_state(path: Path, recorded: Mapping[str, Any] | None, patch: patching.Patch) -> str:
    content = read_bytes(path)
    if content is None:
        return "missing"
    try:
        found = {block.name: block.text for block in marked_blocks.find_blocks(content)}
    except UserError:
        return "edited"
    if not found:
        return "missing" if recorded else "not installed"
    if found != expected_blocks(None, patch):
        return "outdated" if found == expected_blocks(recorded, patch) else "edited"
    return "ok" if recorded is None or sha256_bytes(content) == recorded["after"] else "edited beside"


def expected_blocks(
    recorded: Mapping[str, Any] | None, patch: patching.Patch | None
) -> dict[str, tuple[str, ...]]:
    """Returns the lines of each block by name: as recorded at installation, else as the patch has them."""
    if recorded is not None:
        return {name: tuple(text) for name, text in recorded["blocks"].items()}
    return {i.name: i.lines for i in patch.insertions} if patch is not None else {}


def load_patches() -> list[patching.Patch]:
    """Returns the patches this version of the plugin ships."""
    return [patching.load_patch(path) for path in resources.patches()]


def read_bytes(path: Path) -> bytes | None:
    """Returns a file's content, ``None`` where there is no file."""
    return path.read_bytes() if path.is_file() else None


def sha256_bytes(content: bytes) -> str:
    """Returns the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
