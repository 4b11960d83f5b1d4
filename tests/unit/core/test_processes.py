"""Who counts as running, and workers that do not outlive a parent that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from effort_finetune.core.processes import birth, is_alive

PARENT = """
import multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from effort_finetune.core.processes import end_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(
        2, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
    )
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows kills otherwise")
def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, timeout=60, check=False)
    assert parent.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while is_alive(int(parent.stdout)):
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.05)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_who_is_dead_and_not_yet_waited_for_does_not_run():
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert birth(child) is not None  # its number is still there
        assert not is_alive(child)
        assert not is_alive(child, birth(child))
    finally:
        os.waitpid(child, 0)
    assert is_alive(os.getpid(), birth(os.getpid()))
