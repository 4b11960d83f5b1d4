"""Changes several files of a host as one: after a crash at any step, all of them or none.

1. The journal is written (``staging``): which files will change, from and to which content hash.
2. Every new content is written beside its target and synced.
3. The journal is replaced (``committed``). From here on the change will happen.
4. Each target is replaced by ``os.replace``, or deleted.
5. The journal is deleted.

:func:`recover` drops what a crash left before step 3 and finishes what one left after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import sha256_file, write_json

JOURNAL = ".effort-finetune.journal.json"
_SUFFIX = ".effort-finetune-staged"


def apply(root: Path, changes: Mapping[str, bytes | None]) -> None:
    """Makes all ``changes`` below ``root``, or none.

    Args:
        root: The host's root.
        changes: Path relative to ``root`` -> new content, or ``None`` to delete the file. The order is
            kept. Modes of existing files are kept; a link is followed.

    Raises:
        UserError: If the host cannot be written; nothing has changed then.
    """
    operations = [
        {
            "path": path,
            "before": _hash_of(root / path),
            "after": None if content is None else hashlib.sha256(content).hexdigest(),
        }
        for path, content in changes.items()
    ]
    try:
        write_json(root / JOURNAL, {"state": "staging", "operations": operations})
        for path, content in changes.items():
            if content is not None:
                _stage(root / path, content)
        write_json(root / JOURNAL, {"state": "committed", "operations": operations})
    except OSError as error:
        _discard(root, operations)
        raise UserError(
            f"{error.filename or root} cannot be written; nothing was changed",
            got=error.strerror or error,
            next_step="mend that and run the command again",
        ) from error
    _finish(root, operations)


def is_interrupted(root: Path) -> bool:
    """Tells whether an earlier change was cut off and waits for :func:`recover`."""
    return (root / JOURNAL).is_file()


def recover(root: Path) -> str | None:
    """Brings a host back to a whole state after a crash.

    Returns:
        ``"undone"``, ``"finished"``, or ``None`` when there was nothing to do. ``"dropped, for FILE was
        changed since"``: what was not yet changed stays as it is, and the files hold our blocks or not, each
        whole; installing and uninstalling go on from there.

    Raises:
        UserError: If the journal is damaged, or the host cannot be written.
    """
    for torn in root.glob(f".{JOURNAL}.*.tmp"):  # of a journal whose writing was cut off
        torn.unlink()
    if not is_interrupted(root):
        return None
    try:
        journal: dict[str, Any] = json.loads((root / JOURNAL).read_text(encoding="utf-8"))
        state = journal["state"]
        operations = [
            {key: each[key] for key in ("path", "before", "after")} for each in journal["operations"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{root / JOURNAL} is damaged",
            got=error,
            next_step="restore the host's files with git, delete it, and install again",
        ) from error
    if state == "staging":
        _discard(root, operations)
        return "undone"
    for operation in operations:
        if _hash_of(root / operation["path"]) not in (operation["before"], operation["after"]):
            _discard(root, operations)
            return f"dropped, for {operation['path']} was changed since"
    _finish(root, operations)
    return "finished"


def _finish(root: Path, operations: list[dict[str, Any]]) -> None:
    try:
        for operation in operations:
            _replace(root, root / operation["path"], operation["after"])
        (root / JOURNAL).unlink()
    except OSError as error:
        raise UserError(
            f"{error.filename or root} cannot be written",
            got=error.strerror or error,
            next_step="mend that and run the command again, which finishes the change",
        ) from error


def _replace(root: Path, target: Path, after: str | None) -> None:
    if after is None:
        _remove(target)
    elif _staged(target).exists():
        os.replace(_staged(target), target.resolve())
    elif _hash_of(target) != after:
        raise UserError(
            f"an interrupted install or uninstall of {root} cannot be finished",
            got=f"no staged content for {target}",
            next_step=f"restore the host's files with git, delete {root / JOURNAL}, install again",
        )


def _discard(root: Path, operations: list[dict[str, Any]]) -> None:
    for operation in operations:
        _remove(_staged(root / operation["path"]))
    (root / JOURNAL).unlink(missing_ok=True)


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds more than our file did
        file.parent.rmdir()


def _stage(target: Path, content: bytes) -> None:
    staged = _staged(target)
    staged.parent.mkdir(parents=True, exist_ok=True)
    with staged.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    if target.exists():
        shutil.copymode(target, staged)


def _staged(target: Path) -> Path:
    real = target.resolve()  # beside the file itself: os.replace must not cross file systems
    return real.with_name(f".{real.name}{_SUFFIX}")


def _hash_of(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None
