"""A refused write is one line and leaves the old file; temporaries of dead processes go, others stay."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest
import torch

from effort_finetune.core import files, temporaries
from effort_finetune.core.errors import EXIT_RUN_FAILURE, RunFailure, UserError
from effort_finetune.core.files import refuse_unwritable

KILLED = """
import os, signal, sys
from pathlib import Path
from effort_finetune.core import temporaries
from effort_finetune.core.files import atomic_write
temporaries.folder_in(Path(sys.argv[1]).parent, "crops").joinpath("inside").write_text("x")
def writer(path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
atomic_write(sys.argv[1], writer)
"""


def _temporaries(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".tmp"))


def test_the_dead_are_removed_and_the_living_stay(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.bin")], check=False)
    assert len(_temporaries(tmp_path)) == 2
    living = temporaries.file_beside(tmp_path / "b.bin")
    theirs = tmp_path / ".notes.tmp"
    theirs.write_text("the user's own")
    temporaries._cleaned.discard(os.path.realpath(tmp_path))
    files.write_text(tmp_path / "c.txt", "c")
    assert _temporaries(tmp_path) == sorted([living.name, theirs.name])


def test_another_machines_are_removed_when_they_are_old(tmp_path):
    name = ".a.bin.00000000-1-2-abcdefgh.tmp"
    for age, stays in ((3600, True), (3 * 24 * 3600, False)):
        path = tmp_path / name
        path.write_text("x")
        os.utime(path, (time.time() - age,) * 2)
        temporaries.remove_dead(tmp_path)
        assert path.exists() is stays


def test_long_names_leave_room(tmp_path):
    path = tmp_path / ("ü" * 120 + ".txt")
    assert files.write_text(path, "x").read_text() == "x"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_a_full_disk_is_one_line_and_exit_code_1(tmp_path, error):
    path = tmp_path / "weights.pth"
    path.write_text("old")

    def writer(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(RunFailure, match="MB free") as caught:
        files.atomic_write(path, writer)
    assert isinstance(caught.value, OSError)
    assert caught.value.exit_code == EXIT_RUN_FAILURE
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pth"]


def test_a_real_full_disk(tmp_path):
    """/dev/full refuses every byte, as torch meets it."""

    def writer(temporary):
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        torch.save({"a": torch.zeros(1000)}, temporary)

    with pytest.raises(RunFailure):
        files.atomic_write(tmp_path / "a.pth", writer)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writers_own_comes_through(tmp_path):
    def writer(temporary):
        raise ValueError("no JSON")

    with pytest.raises(ValueError, match="no JSON"):
        files.atomic_write(tmp_path / "a", writer)


def test_a_refusal_that_passes_is_tried_again(tmp_path, monkeypatch):
    real, left = os.replace, [2]

    def sometimes(source, target):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EBUSY, "busy")
        real(source, target)

    monkeypatch.setattr(os, "replace", sometimes)
    assert files.write_text(tmp_path / "a", "x").read_text() == "x"
    left[0] = 9
    with pytest.raises(files.WriteError, match="busy"):
        files.write_text(tmp_path / "a", "y")
    assert (tmp_path / "a").read_text() == "x"


def test_a_folder_is_refused_or_passes_and_is_not_made(tmp_path):
    (tmp_path / "file").write_text("x")
    refuse_unwritable(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(UserError, match="output folder; got .*file is no folder.*--output_dir"):
        refuse_unwritable(tmp_path / "file" / "folder")
