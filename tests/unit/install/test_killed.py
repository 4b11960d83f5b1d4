"""``install`` and ``uninstall`` killed with SIGKILL at each write: never a half-applied host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from effort_finetune.install.transaction import JOURNAL

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_killed_at_each_write(command, host_root, tmp_path):
    driver = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, driver, command, host_root, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    whole = [result["untouched"], result["installed"]]
    outcomes = set()
    for n, death in enumerate(result["deaths"]):
        assert death["ended"] == signal.SIGKILL
        interrupted = json.loads(death["status"])["interrupted"]
        assert interrupted or _without_torn_journal(death["left"]) in whole, f"half applied, unsaid, at {n}"
        assert death["after_status"] == death["left"], "status changed the host"
        for again, tree in (("install", result["installed"]), ("uninstall", result["untouched"])):
            code, printed, left = death[again]
            assert code == 0, printed
            assert left == tree, f"{again} after a death at {n}"
            assert interrupted == ("was interrupted" in printed)
            outcomes |= {word for word in ("undone", "finished") if f"its changes were {word}" in printed}
    assert outcomes == {"undone", "finished"}
    assert len(result["deaths"]) > 30


def _without_torn_journal(tree):
    return {path: content for path, content in tree.items() if not path.startswith(f".{JOURNAL}.")}
