"""What an install or uninstall would change in a host, and doing it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from effort_finetune import __version__
from effort_finetune.core import resources
from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.host import marked_blocks
from effort_finetune.host.host import Host
from effort_finetune.install import patches as patching
from effort_finetune.install import transaction
from effort_finetune.install.plan import Change, Plan
from effort_finetune.install.record import (
    MANIFEST,
    expected_blocks,
    load_patches,
    read_bytes,
    read_record,
    sha256_bytes,
)


def plan_install(host: Host) -> Plan:
    """Computes what installing, or bringing an installation up to date, would change.

    What an earlier version installed and this one does not have is taken out.

    Raises:
        UserError: If a patch does not fit the host, a block of ours was edited, or a file of the
            overlay's name is there already; all of them at once.
    """
    draft = _Draft(host.root)
    patched: dict[str, Any] = {}
    created: dict[str, str] = {}
    patches, overlay = load_patches(), resources.overlay()
    for patch in patches:
        with draft.collecting_errors():
            patched[patch.file] = draft.put_in_blocks(patch)
    for source, path in overlay:
        with draft.collecting_errors():
            created[path] = draft.put_in_file(path, source.read_bytes())
    for path in sorted(set(draft.patched) - set(patched)):
        draft.take_out_blocks(path, None)
    for path in sorted(set(draft.created) - set(created)):
        draft.take_out_file(path, draft.created[path])
    return draft.plan(_record(host, patched, created))


def plan_uninstall(host: Host) -> Plan:
    """Computes what taking the plugin out would change.

    Edits beside our blocks, and overlay files that were edited, are kept.

    Raises:
        UserError: If a block of ours was edited; nothing is changed then.
    """
    draft = _Draft(host.root)
    patches = {patch.file: patch for patch in load_patches()}
    for path in sorted({*draft.patched, *patches}):
        draft.take_out_blocks(path, patches.get(path))
    # Without a record, what equals our file is our file.
    ours = {path: sha256_bytes(source.read_bytes()) for source, path in resources.overlay()}
    for path, sha256 in (draft.created or ours).items():
        draft.take_out_file(path, sha256)
    return draft.plan(None)


class _Draft:
    """Collects the changes, notes and errors that a plan is made of.

    Args:
        root: The host's root.

    Attributes:
        patched: The record's patched files.
        created: The record's added files with their hashes.
    """

    def __init__(self, root: Path) -> None:
        record = read_record(root)
        self.patched: dict[str, Any] = record.get("patched", {})
        self.created: dict[str, str] = record.get("created", {})
        self._root = root
        self._changes: list[Change] = []
        self._notes: list[str] = []
        self._errors: list[UserError] = []

    @contextlib.contextmanager
    def collecting_errors(self) -> Iterator[None]:
        """Keeps a user error for :meth:`plan`, so that all are shown at once."""
        try:
            yield
        except UserError as error:
            self._errors.append(error)

    def put_in_blocks(self, patch: patching.Patch) -> dict[str, Any]:
        """Patches a file; returns its entry in the record."""
        before = read_bytes(self._root / patch.file)
        if before is None:
            raise UserError(f"{patch.file} is missing in {self._root}", expected="a complete DeepfakeBench")
        _refuse_edited_blocks(patch.file, before, self.patched.get(patch.file), patch)
        base = marked_blocks.strip(before)
        after = patching.insert(base, patch)
        _check_syntax(patch.file, after)
        self._change(patch.file, "patch", before, after)
        blocks = {block.name: list(block.text) for block in marked_blocks.find_blocks(after)}
        return {"before": sha256_bytes(base), "after": sha256_bytes(after), "blocks": blocks}

    def put_in_file(self, path: str, content: bytes) -> str:
        """Adds a file; returns its hash for the record."""
        present, recorded = read_bytes(self._root / path), self.created.get(path)
        foreign = present is None and os.path.lexists(self._root / path)  # a folder, a link to nowhere
        if foreign or (present not in (None, content) and recorded is None):
            raise UserError(
                f"{path} is in the host already and is not the plugin's",
                next_step="move it away and install again",
            )
        if present is not None and present != content and sha256_bytes(present) != recorded:
            self._notes.append(f"kept {path}: you have edited it")
            return str(recorded)
        self._change(path, "add", present, content)
        return sha256_bytes(content)

    def take_out_blocks(self, path: str, patch: patching.Patch | None) -> None:
        """Takes our blocks out of a file."""
        before, recorded = read_bytes(self._root / path), self.patched.get(path)
        if before is None:
            return
        with self.collecting_errors():
            _refuse_edited_blocks(path, before, recorded, patch)
            after = marked_blocks.strip(before)
            self._change(path, "restore", before, after)
            if recorded is not None and sha256_bytes(after) != recorded["before"]:
                self._notes.append(f"{path} has edits of yours, which stay")

    def take_out_file(self, path: str, sha256: str) -> None:
        """Deletes a file of ours that nobody has edited."""
        before = read_bytes(self._root / path)
        if before is not None and sha256_bytes(before) == sha256:
            self._change(path, "remove", before, None)
        elif before is not None and path in self.created:
            self._notes.append(f"kept {path}: you have edited it; delete it by hand if you do not need it")

    def plan(self, record: bytes | None) -> Plan:
        """Returns the plan; ``record`` is the new content of the record.

        Raises:
            UserError: What was collected.
        """
        if self._errors:
            raise self._errors[0] if len(self._errors) == 1 else UserErrors(self._errors)
        self._change(MANIFEST, "record", read_bytes(self._root / MANIFEST), record)
        return Plan(self._root, tuple(self._changes), tuple(self._notes))

    def _change(self, path: str, action: str, before: bytes | None, after: bytes | None) -> None:
        if after != before:
            self._changes.append(Change(path, action, before, after))


def execute(plan: Plan, *, verify: bool = False) -> None:
    """Makes the changes of a plan, all or none.

    Args:
        plan: From :func:`plan_install` or :func:`plan_uninstall`.
        verify: Import the changed host in a fresh interpreter; if that fails, undo everything.

    Raises:
        UserError: If the host cannot be written, or does not import afterwards; it is as before then.
    """
    if not plan.changes:
        return
    transaction.apply(plan.root, {change.path: change.after for change in plan.changes})
    if verify:
        complaint = _import_complaint(plan.root)
        if complaint is not None:
            transaction.apply(plan.root, {change.path: change.before for change in plan.changes})
            raise UserError(
                f"{plan.root} does not import with the plugin in it",
                got=complaint,
                next_step="everything was put back; effort-finetune doctor may name the cause",
            )


def _refuse_edited_blocks(
    path: str, content: bytes, recorded: Mapping[str, Any] | None, patch: patching.Patch | None
) -> None:
    known = (expected_blocks(recorded, patch), expected_blocks(None, patch))
    for block in marked_blocks.find_blocks(content):
        if block.text not in [blocks.get(block.name) for blocks in known]:
            raise UserError(
                f"{path}: the block {block.name!r} of effort-finetune was edited",
                got=f"line {block.start + 1}",
                expected="the lines that were installed",
                next_step="undo the edit, or move it out of the block and delete the block",
            )


def _check_syntax(path: str, content: bytes) -> None:
    try:
        if path.endswith(".py"):
            ast.parse(content, filename=path)
        else:
            yaml.safe_load(content)
    except (SyntaxError, yaml.YAMLError) as error:
        raise UserError(
            f"{path} would not parse with the plugin's lines in it",
            got=error,
            expected="the host's file as released",
            next_step=f"restore it, or do without: {patching.WITHOUT_INSTALLING}",
        ) from error


def _import_complaint(root: Path) -> str | None:
    program = (
        "import sys, numpy; from effort_finetune.host import open_host; host = open_host(sys.argv[1]); "
        "host.registry('DETECTOR'); host.get_test_metrics(numpy.array([.1, .9]), numpy.array([0, 1]), "
        "['r/a/0.png', 'f/b/0.png'])"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _record(host: Host, patched: Mapping[str, Any], created: Mapping[str, str]) -> bytes:
    tree = {
        "about": "Written by effort-finetune; `effort-finetune uninstall` reads it. Do not edit.",
        "version": __version__,
        "host": {"kind": host.kind, "commit": host.commit},
        "patched": patched,
        "created": created,
    }
    return (json.dumps(tree, indent=1) + "\n").encode()
