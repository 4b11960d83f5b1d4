"""Makes the changes of a plan, one whole file after the other."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable
from pathlib import Path

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import atomic_write
from effort_finetune.core.locks import hold
from effort_finetune.core.temporaries import remove_dead
from effort_finetune.install.plan import Change, Plan
from effort_finetune.install.record import KNOWN, MANIFEST


def only_one(root: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps a second install or uninstall of the same host out.

    Raises:
        UserError: If one is at work.
    """
    return hold(root, what="host", next_step="wait for it and run the command again")


def execute(plan: Plan) -> None:
    """Makes the changes of a plan in their order, each file as a whole.

    Killed at any point, the host works, and the next install completes it or the next uninstall takes it out.

    Raises:
        UserError: If a file cannot be written; the ones before it are done.
    """
    for number, change in enumerate(plan.changes):
        if change.path == MANIFEST and change.after is None:  # it is what knows of the folders
            _remove_empty(plan.root, plan.folders)
        try:
            _make(plan.root, change)
        except OSError as error:
            raise UserError(
                f"{change.path} cannot be written; {number} of {len(plan.changes)} changes were made",
                got=error.strerror or error,
                next_step="fix that and run the command again, which goes on from there",
            ) from error


def remove_leftovers(root: Path) -> None:
    """Deletes the half-written neighbours of our files that a killed command left."""
    for folder in {(root / name).resolve().parent for name in (*KNOWN, MANIFEST)}:
        if folder.is_relative_to(root.resolve()):
            remove_dead(folder)


def _remove_empty(root: Path, folders: Iterable[str]) -> None:
    for folder in sorted(folders, key=len, reverse=True):
        with contextlib.suppress(OSError):  # it holds more than our file did
            (root / folder).rmdir()


def _make(root: Path, change: Change) -> None:
    target = (root / change.path).resolve()  # a link stays one
    if change.after is None:
        target.unlink(missing_ok=True)
        return
    content = change.after
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    atomic_write(target, lambda temporary: temporary.write_bytes(content), mode=mode)
