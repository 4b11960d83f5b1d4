"""One writer a folder: refused at once with the holder named, freed by any death."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from effort_finetune.core import locks
from effort_finetune.core.errors import UserError

HOLD = """
import sys, time
from effort_finetune.core import locks
{setup}
with locks.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _holding(folder, setup=""):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(setup=setup), str(folder), "a\x1b[2Jname"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "held\n"
    return child


def _end(child):
    child.kill()
    child.wait()
    child.stdout.close()


NO_FLOCK = """
import fcntl, errno
def refuse(*_):
    raise OSError(errno.ENOLCK, "no locks available")
fcntl.flock = refuse
"""


def _refuse(*_):
    raise OSError(errno.ENOLCK, "no locks available")


@pytest.fixture(params=["flock", "pid file"])
def setup(request, monkeypatch):
    if request.param == "flock":
        return ""
    monkeypatch.setattr(locks.fcntl, "flock", _refuse)
    return NO_FLOCK


def test_a_second_process_is_refused_at_once_and_told_who_holds_it(tmp_path, setup):
    child = _holding(tmp_path, setup)
    try:
        begun = time.monotonic()
        with pytest.raises(UserError, match="is in use") as caught, locks.hold(tmp_path, what="run folder"):
            pass
        assert time.monotonic() - begun < 1
        text = str(caught.value)
        assert f"process {child.pid}" in text
        assert "since 2" in text
        assert "\\x1b[2Jname" in text
        assert "\x1b" not in text
        assert locks.holder(tmp_path).pid == child.pid
        with pytest.raises(UserError, match=f"is in use; got process {child.pid}"):
            locks.refuse_held(tmp_path)
    finally:
        _end(child)
    locks.refuse_held(tmp_path / "not there")


def test_a_death_frees_it(tmp_path, setup):
    _end(_holding(tmp_path, setup))
    assert (tmp_path / locks.LOCK_NAME).exists()
    assert locks.holder(tmp_path) is None
    with locks.hold(tmp_path):
        assert locks.holder(tmp_path).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_used_again_does_not_hold_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.fcntl, "flock", _refuse)
    mine = {"pid": os.getppid(), "born": "1", "host": locks.host_name(), "since": "", "command": ""}
    (tmp_path / locks.LOCK_NAME).write_text(json.dumps(mine))
    with locks.hold(tmp_path):
        pass


def test_another_machines_pid_file_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.fcntl, "flock", _refuse)
    other = {"pid": 1, "born": None, "host": "elsewhere", "since": "2026-01-01 00:00:00", "command": "x"}
    (tmp_path / locks.LOCK_NAME).write_text(json.dumps(other))
    with pytest.raises(UserError, match="process 1 on elsewhere"), locks.hold(tmp_path):
        pass


def test_a_file_that_a_dead_container_left_refuses_nobody(tmp_path):
    other = {"pid": 7, "born": None, "host": "another machine", "since": "2", "command": "x"}
    (tmp_path / locks.LOCK_NAME).write_text(json.dumps(other))
    locks.refuse_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


PID = b'{"born": null, "host": "a", "since": "b", "command": "c", "pid": '


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\xfe", b"[]", b'{"pid": "x"}', b"{" * 5000, b"[" * 4000),
        *(PID + number + b"}" for number in (b"1e999", b"-1", b"9" * 25)),
    ],
)
def test_a_damaged_lock_file_holds_nothing(tmp_path, setup, content):
    (tmp_path / locks.LOCK_NAME).write_bytes(content)
    with locks.hold(tmp_path):
        pass


def test_the_same_thread_may_hold_it_twice_another_thread_not(tmp_path, setup):
    seen = []

    def other():
        try:
            with locks.hold(tmp_path):
                seen.append("held")
        except UserError:
            seen.append("refused")

    with locks.hold(tmp_path):
        with locks.hold(tmp_path / "." / "x" / ".."):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert seen == ["refused"]
    with locks.hold(tmp_path):
        pass


def test_an_error_inside_frees_it(tmp_path, setup):
    with pytest.raises(RuntimeError), locks.hold(tmp_path):
        raise RuntimeError
    with locks.hold(tmp_path):
        pass


def test_forked_workers_do_not_keep_it(tmp_path):
    code = """
import os, sys, time
from effort_finetune.core import locks
lock = locks.hold(sys.argv[1]); lock.__enter__()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    _end(parent)
    try:
        with locks.hold(tmp_path):
            pass
    finally:
        os.kill(worker, 9)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no lock can be made"), locks.hold(tmp_path / "file"):
        pass


def test_a_full_disk_costs_the_holders_name_and_not_the_lock(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locks.os, "write", full)
    with locks.hold(tmp_path):
        pass
