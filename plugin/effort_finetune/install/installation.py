"""What an install or uninstall would change in a host.

The changes are in an order in which any number of the first ones leaves a host that works, and from which the
next command goes on: the record first of all and last of all, added files before the lines that import them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.host import marked_blocks
from effort_finetune.host.host import Host
from effort_finetune.install.patches import Misfit, Patch, insert
from effort_finetune.install.plan import Change, Plan
from effort_finetune.install.record import (
    MANIFEST,
    Record,
    Replaced,
    expected_blocks,
    read_bytes,
    read_record,
    sha256_bytes,
    shipped_patches,
)

#: The files of a user's that ``--replace`` takes the place of; his settings file stays and is read.
REPLACEABLE = ("training/finetune.py", "training/evaluate_finetune.py")

_DETECTOR = "training/detectors/effort_finetune_detector.py"
#: What a user has to do without where a file of his bears the name of one of ours.
_LOST = {
    "training/finetune.py": "yours runs; ours is: effort-finetune finetune (or install --replace)",
    "training/evaluate_finetune.py": "yours runs; ours is: effort-finetune evaluate (or install --replace)",
    "training/config/detector/effort_finetune.yaml": "your settings are read",
    _DETECTOR: "our detector and trainer are not in the host's registries",
}


def plan_install(host: Host, *, replace: bool = False) -> Plan:
    """Computes what installing, or bringing an installation up to date, would change.

    What does not fit is left out and noted, with what is lost by it. What an earlier version installed and
    this one does not have is taken out.

    Args:
        host: The host.
        replace: Put our two scripts in the place of files of the user's that bear their names; the record
            keeps those.
    """
    draft = _Draft(host.root)
    overlay = resources.overlay()
    for source, path in overlay:
        draft.put_in_file(path, source.read_bytes(), replace=replace)
    patches = shipped_patches()
    for patch in patches:
        draft.put_in_block(patch)
    for path in sorted(set(draft.old.patched) - {patch.file for patch in patches}):
        draft.take_out_blocks(path, None)
    for path in sorted(set(draft.old.created) - {path for _, path in overlay}):
        draft.take_out_file(path)
    return draft.plan(draft.new.to_bytes(host), first=True)


def plan_uninstall(host: Host) -> Plan:
    """Computes what taking the plugin out would change.

    Edits beside our blocks, and added files that were edited, are kept. A file that ``--replace`` took the
    place of comes back.

    Raises:
        UserError: If a block of ours was edited; nothing is changed then.
    """
    draft = _Draft(host.root)
    patches = {patch.file: patch for patch in shipped_patches()}
    files = dict.fromkeys([*reversed(patches), *draft.old.patched])
    for path in files:  # the line that imports an added file goes first
        draft.take_out_blocks(path, patches.get(path))
    # Without a record, what equals our file is our file.
    if draft.old.version is None:
        draft.old.created = {p: sha256_bytes(source.read_bytes()) for source, p in resources.overlay()}
    for path in draft.old.created:
        draft.take_out_file(path)
    return draft.plan(None, first=False)


class _Draft:
    """Collects the changes, notes and errors that a plan is made of.

    Args:
        root: The host's root.

    Attributes:
        old: The record that is there.
        new: The record of what the plan leads to.
    """

    def __init__(self, root: Path) -> None:
        self.old = read_record(root)
        self.new = Record(folders=list(self.old.folders))
        self._root = root
        self._changes: list[Change] = []
        self._notes: list[str] = []
        self._errors: list[UserError] = []

    def put_in_block(self, patch: Patch) -> None:
        """Puts a file's block in, or notes why it does not fit."""
        recorded = self.old.patched.get(patch.file)
        before = read_bytes(self._root / patch.file)
        try:
            if before is None:
                raise Misfit("it is not there")
            if not self._is_inside(patch.file):
                raise Misfit("it is a link that leads out of the checkout")
            if patch.file == "training/detectors/__init__.py" and _DETECTOR not in self.new.created:
                raise Misfit(f"{_DETECTOR} is a file of yours")
            if edited := _edited_block(before, recorded, patch):
                raise Misfit(edited)
            base = marked_blocks.strip(before)
            after = insert(base, patch)
        except Misfit as misfit:
            self.new.left[patch.file] = str(misfit)
            self._notes.append(f"{patch.file} is left as it is: {misfit}; lost: {patch.lost}")
            if recorded is not None:
                self.new.patched[patch.file] = recorded
            return
        self._change(patch.file, "patch", before, after)
        blocks = {block.name: list(block.text) for block in marked_blocks.find_blocks(after)}
        self.new.patched[patch.file] = {
            "before": sha256_bytes(base),
            "after": sha256_bytes(after),
            "blocks": blocks,
        }

    def put_in_file(self, path: str, content: bytes, *, replace: bool) -> None:
        """Adds a file, or leaves the user's own where there is one."""
        present, recorded = read_bytes(self._root / path), self.old.created.get(path)
        kept = self.old.replaced.get(path)
        if not self._is_inside(path) or (present is None and os.path.lexists(self._root / path)):
            self._leave(path, "what bears this name is no plain file of the checkout")
            return
        if present is not None and present != content and recorded is None:
            if not (replace and path in REPLACEABLE):
                self._leave(path, "it is a file of yours")
                return
            kept = Replaced(present)
        if kept is not None:
            self.new.replaced[path] = kept
        pending = kept is not None and present == kept.content  # an install that was cut off
        if present not in (None, content) and recorded not in (None, sha256_bytes(present)) and not pending:
            self._notes.append(f"kept {path}: you have edited it")
            self.new.created[path] = str(recorded)
            return
        self.new.created[path] = sha256_bytes(content)
        self._note_folder(path)
        self._change(path, "add" if present is None or recorded else "replace", present, content)

    def take_out_blocks(self, path: str, patch: Patch | None) -> None:
        """Takes our blocks out of a file."""
        before, recorded = read_bytes(self._root / path), self.old.patched.get(path)
        if before is None or not self._is_inside(path):
            return
        if edited := _edited_block(before, recorded, patch):
            self._errors.append(
                UserError(
                    f"{path}: {edited}",
                    expected="the lines that were installed",
                    next_step="undo the edit, or move it out of the block and delete the block",
                )
            )
            return
        after = marked_blocks.strip(before)
        self._change(path, "restore", before, after)
        if recorded is not None and sha256_bytes(after) != recorded["before"]:
            self._notes.append(f"{path} has edits of yours, which stay")

    def take_out_file(self, path: str) -> None:
        """Deletes a file of ours that nobody has edited, or puts back what it took the place of."""
        before, recorded = read_bytes(self._root / path), self.old.created[path]
        kept = self.old.replaced.get(path)
        if before is None or not self._is_inside(path) or (kept and before == kept.content):
            return
        if sha256_bytes(before) == recorded:
            self._change(path, "restore" if kept else "remove", before, kept.content if kept else None)
        elif self.old.version is not None:
            advice = "delete it by hand if you do not need it"
            if kept:
                old = f"{path}.before-effort-finetune"
                self._change(old, "restore", read_bytes(self._root / old), kept.content)
                advice = f"your earlier one is {old}"
            self._notes.append(f"kept {path}: you have edited it; {advice}")

    def plan(self, record: bytes | None, *, first: bool) -> Plan:
        """Returns the plan; ``record`` is the new content of the record, written ``first`` or last.

        Raises:
            UserError: What was collected.
        """
        if self._errors:
            raise self._errors[0] if len(self._errors) == 1 else UserErrors(self._errors)
        before = read_bytes(self._root / MANIFEST)
        written = [Change(MANIFEST, "record", before, record)] if record != before else []
        changes = [*written, *self._changes] if first else [*self._changes, *written]
        folders = () if record is not None else tuple(self.old.folders)
        return Plan(self._root, tuple(changes), tuple(self._notes), folders)

    def _leave(self, path: str, why: str) -> None:
        self.new.left[path] = why
        self._notes.append(f"{path} is left as it is: {why}; {_LOST[path]}")

    def _note_folder(self, path: str) -> None:
        for parent in PurePosixPath(path).parents:
            if str(parent) not in (".", *self.new.folders) and not (self._root / parent).exists():
                self.new.folders.append(str(parent))

    def _is_inside(self, path: str) -> bool:
        """Tells whether a path, with its links followed, stays in the checkout."""
        return (self._root / path).resolve().is_relative_to(self._root.resolve())

    def _change(self, path: str, action: str, before: bytes | None, after: bytes | None) -> None:
        if after != before:
            self._changes.append(Change(path, action, before, after))


def _edited_block(content: bytes, recorded: Mapping[str, Any] | None, patch: Patch | None) -> str | None:
    """Says which block of ours in ``content`` somebody has edited; ``None`` where none was."""
    known = (expected_blocks(recorded, patch), expected_blocks(None, patch))
    try:
        blocks = marked_blocks.find_blocks(content)
    except UserError as error:
        return f"{error.what} ({error.got})"
    for block in blocks:
        if block.text not in [blocks.get(block.name) for blocks in known]:
            return f"the block of effort-finetune in line {block.start + 1} was edited"
    return None
