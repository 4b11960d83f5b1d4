"""``install`` and ``uninstall`` killed with SIGKILL at each write: the host works, the next one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@pytest.mark.parametrize(("command", "options"), [("install", ["--replace"]), ("uninstall", ["--replace"])])
def test_killed_at_each_write(command, options, host_root, tmp_path):
    for package in ("metrics", "dataset", "trainer"):
        (host_root / f"training/{package}/__init__.py").write_text("")
    for script in ("train.py", "test.py"):
        (host_root / "training" / script).write_text("import argparse\n")
    (host_root / "training/finetune.py").write_text("print('mine')\n")
    (host_root / "training/finetune.py").chmod(0o755)
    driver = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, driver, command, host_root, tmp_path, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    states = set()
    for n, death in enumerate(result["deaths"]):
        assert death["ended"] == signal.SIGKILL
        assert death["broken"] == "", f"the host does not import after a death at {n}"
        assert death["after_status"] == death["left"], "status changed the host"
        states.add(json.loads(death["status"])["installed"])
        for again, tree in (("install", result["installed"]), ("uninstall", result["untouched"])):
            code, printed, left = death[again]
            assert code == 0, printed
            script = "training/finetune.py"  # an install without the option leaves what is not replaced yet
            stays = again == "install" and left[script] == result["untouched"][script]
            assert left == tree or stays, f"{again} after a death at {n}"
    assert states == {True, False}
    assert len(result["deaths"]) > 30
