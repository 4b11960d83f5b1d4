"""Only where a real checkout is named: exact undo."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from bench_data import NEEDS_REAL, REAL, copy_host

from effort_finetune.cli.main import main
from effort_finetune.core import resources
from effort_finetune.install.record import MANIFEST, shipped_patches

pytestmark = [NEEDS_REAL, pytest.mark.real_host]


def _snapshot(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != ".lock"
    }


def test_install_and_uninstall_restore_every_byte(tmp_path, capsys):
    root = copy_host(Path(str(REAL)), tmp_path / "host")
    before = _snapshot(root)
    assert main(["install", str(root), "--replace", "--dry-run"]) == 0
    assert _snapshot(root) == before
    assert "+    take_over(__file__, __name__)" in capsys.readouterr().out
    assert main(["install", str(root), "--replace"]) == 0
    after = _snapshot(root)
    changed = {name for name, value in after.items() if before.get(name) != value}
    blocks = {patch.file for patch in shipped_patches()}
    added = {path for _, path in resources.overlay()}
    assert blocks <= changed <= blocks | added | {MANIFEST}
    assert (added | {MANIFEST}) <= set(after)
    assert main(["uninstall", str(root)]) == 0
    assert _snapshot(root) == before
