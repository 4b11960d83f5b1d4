"""Only where a real checkout is named: exact undo, and the host's own trainer on our detector."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from bench_data import NEEDS_REAL, REAL, SETTINGS, copy_host

from effort_finetune.cli.main import main

pytestmark = [NEEDS_REAL, pytest.mark.real_host]


def _snapshot(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_install_and_uninstall_restore_every_byte(tmp_path, capsys):
    root = copy_host(Path(str(REAL)), tmp_path / "host")
    before = _snapshot(root)
    assert main(["install", str(root), "--dry-run"]) == 0
    assert _snapshot(root) == before
    assert "+    effort_finetune_run.add_flags(parser)" in capsys.readouterr().out
    assert main(["install", str(root)]) == 0
    changed = {name for name, value in _snapshot(root).items() if before.get(name) != value}
    assert len(changed) == 9
    assert main(["uninstall", str(root)]) == 0
    assert _snapshot(root) == before


@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", ["real"], indirect=True)
def test_the_hosts_own_trainer_trains_our_detector(bench, tmp_path):
    done = bench.script(
        "train.py",
        *("--detector_path", "training/config/detector/effort_finetune.yaml", "--trainer", "null"),
        *("--train_dataset", "UADFV", "--test_dataset", "UADFV", "--clip_path", bench.clip),
        *("--nEpochs", 1, "--train_batchSize", 8, "--log_dir", tmp_path / "logs", *SETTINGS),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "logs").rglob("ckpt_best.pth"))
