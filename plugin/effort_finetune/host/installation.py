"""What an install or uninstall would change in a host, and doing it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from effort_finetune import __version__, resources
from effort_finetune.errors import UserError, UserErrors
from effort_finetune.host import patching, transaction
from effort_finetune.host.host import Host
from effort_finetune.host.installed import (
    MANIFEST,
    expected_blocks,
    load_patches,
    read_bytes,
    read_record,
    sha256_bytes,
)
from effort_finetune.host.plan import Change, Plan


def plan_install(host: Host) -> Plan:
    """Computes what installing, or bringing an installation up to date, would change.

    Raises:
        UserError: If a patch does not fit the host, a block of ours was edited, or a file of the
            overlay's name is there already; all of them at once.
    """
    record = read_record(host.root)
    errors: list[UserError] = []
    notes: list[str] = []
    changes: list[Change] = []
    patched: dict[str, Any] = {}
    for patch in load_patches():
        try:
            before = _read_host_file(host.root, patch.file)
            _refuse_edited_blocks(patch.file, before, record, patch)
            base = patching.strip(before)
            after = patching.insert(base, patch)
            _check_syntax(patch.file, after)
        except UserError as error:
            errors.append(error)
            continue
        blocks = {block.name: list(block.text) for block in patching.find_blocks(after)}
        patched[patch.file] = {"before": sha256_bytes(base), "after": sha256_bytes(after), "blocks": blocks}
        if after != before:
            changes.append(Change(patch.file, "patch", before, after))
    created: dict[str, str] = {}
    for source, path in resources.overlay():
        content, present = source.read_bytes(), read_bytes(host.root / path)
        recorded = record.get("created", {}).get(path)
        if present is not None and present != content and recorded is None:
            errors.append(
                UserError(
                    f"{path} is in the host already and is not the plugin's",
                    next_step="move it away and install again",
                )
            )
        elif present is not None and recorded not in (None, sha256_bytes(present)) and present != content:
            notes.append(f"kept {path}: you have edited it")
            created[path] = recorded
        elif present is None or recorded is not None:
            created[path] = sha256_bytes(content)
            if present != content:
                changes.append(Change(path, "add", present, content))
    if errors:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)
    new_record, old_record = _record(host, patched, created), read_bytes(host.root / MANIFEST)
    if new_record != old_record:
        changes.append(Change(MANIFEST, "record", old_record, new_record))
    return Plan(host.root, tuple(changes), tuple(notes))


def plan_uninstall(host: Host) -> Plan:
    """Computes what taking the plugin out would change.

    Edits beside our blocks, and overlay files that were edited, are kept.

    Raises:
        UserError: If a block of ours was edited; nothing is changed then.
    """
    record = read_record(host.root)
    errors: list[UserError] = []
    notes: list[str] = []
    changes: list[Change] = []
    patches = {patch.file: patch for patch in load_patches()}
    for path in sorted({*record.get("patched", {}), *patches}):
        before = read_bytes(host.root / path)
        if before is None:
            continue
        try:
            _refuse_edited_blocks(path, before, record, patches.get(path))
            after = patching.strip(before)
        except UserError as error:
            errors.append(error)
            continue
        if after != before:
            changes.append(Change(path, "restore", before, after))
        recorded = record.get("patched", {}).get(path)
        if recorded is not None and sha256_bytes(after) != recorded["before"]:
            notes.append(f"{path} has edits of yours, which stay")
    for path, sha256 in record.get("created", {}).items():
        before = read_bytes(host.root / path)
        if before is not None and sha256_bytes(before) == sha256:
            changes.append(Change(path, "remove", before, None))
        elif before is not None:
            notes.append(f"kept {path}: you have edited it; delete it by hand if you do not need it")
    if errors:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)
    if record:
        changes.append(Change(MANIFEST, "record", read_bytes(host.root / MANIFEST), None))
    return Plan(host.root, tuple(changes), tuple(notes))


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
    path: str, content: bytes, record: Mapping[str, Any], patch: patching.Patch | None
) -> None:
    expected = expected_blocks(record.get("patched", {}).get(path), patch)
    for block in patching.find_blocks(content):
        if expected.get(block.name) != block.text:
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
            next_step="restore it, or use training/finetune.py, which needs no patch",
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


def _read_host_file(root: Path, path: str) -> bytes:
    content = read_bytes(root / path)
    if content is None:
        raise UserError(f"{path} is missing in {root}", expected="a complete DeepfakeBench")
    return content
