"""User errors, atomic files, derived seeds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from effort_finetune.core.errors import UserError, UserErrors, did_you_mean, suggest
from effort_finetune.core.files import atomic_write, ensure_writable_dir, sha256_file, write_json, write_text
from effort_finetune.core.seeding import derive, generator, seed_everything, worker_init


def test_a_user_error_is_one_line_with_its_clauses():
    error = UserError("weights", got="a\nb", expected="c", next_step="d")
    assert str(error) == "weights; got a b; expected c; next: d"
    assert str(UserErrors([error, UserError("x")])).splitlines() == [str(error), "x"]


def test_suggestions_ignore_case():
    assert suggest("uadfv", ["UADFV", "DFDC"]) == ["UADFV"]
    assert did_you_mean("zzz", ["UADFV"]) is None


def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path):
    path = write_text(tmp_path / "f.txt", "old")

    def broken(temporary):
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        atomic_write(path, broken)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "f.txt", "old")
    code = (
        "import os, signal, sys; from effort_finetune.core.files import atomic_write\n"
        "def w(t): t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic_write(sys.argv[1], w)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_json_is_strict_and_files_are_readable_by_others(tmp_path):
    path = write_json(tmp_path / "sub" / "f.json", {"a": [1, "ü"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, "ü"]}
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert len(sha256_file(path)) == 64


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_unwritable_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="output folder"):
        ensure_writable_dir(tmp_path / "file" / "sub")


def test_streams_are_reproducible_and_independent():
    assert derive(1, "a") == derive(1, "a") != derive(1, "b")
    assert torch.rand(3, generator=generator(1, "x")).equal(torch.rand(3, generator=generator(1, "x")))
    seed_everything(7)
    first = (random.random(), np.random.rand(), torch.rand(1).item())
    seed_everything(7)
    assert first == (random.random(), np.random.rand(), torch.rand(1).item())


def test_workers_draw_differently():
    torch.manual_seed(3)
    worker_init(0)
    first = (random.random(), np.random.rand())
    worker_init(1)
    second = (random.random(), np.random.rand())
    assert first[0] != second[0]
    assert first[1] != second[1]
