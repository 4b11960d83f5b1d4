"""Whatever ends a run: saved state, results with the reason, one line, and the same bits afterwards."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from effort_finetune.core import files
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.data.frames import FrameDataset
from effort_finetune.train import finetuning
from effort_finetune.train.engine import Engine
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.run_log import run_logger
from effort_finetune.train.tensorboard import TensorBoard
from effort_finetune.weights import run_state

from .running import document, quick, run, state
from .test_resume import assert_equal


def in_a_step(number: int, action: Callable[[], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """Does something at the beginning of the ``number``-th step, counted from 1."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original, made = TrainingLoop._step, 0

        def step(self: TrainingLoop, *args: Any) -> float:
            nonlocal made
            made += 1
            if made == number:
                action()
            return original(self, *args)

        patch.setattr(TrainingLoop, "_step", step)

    return plant


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def sending(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def refusing_once(patch: pytest.MonkeyPatch) -> None:
    """``os.replace`` of the first state fails, with an error that no second try within a moment gets past."""
    original, refused = os.replace, False

    def replace(source: Any, target: Any) -> None:
        nonlocal refused
        if Path(target).name == run_state.LAST_NAME and not refused:
            refused = True
            raise OSError(errno.EIO, "Input/output error")
        original(source, target)

    patch.setattr(files.os, "replace", replace)


def worker_killed(patch: pytest.MonkeyPatch) -> None:
    parent, original = os.getpid(), FrameDataset.__getitem__

    def read(self: FrameDataset, index: int) -> Any:
        if os.getpid() != parent and int(self._epoch[1]) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    patch.setattr(FrameDataset, "__getitem__", read)


ENDS = {
    "bug": in_a_step(8, raising(ZeroDivisionError("a bug"))),
    "memory": in_a_step(8, raising(MemoryError())),
    "second Ctrl-C": in_a_step(8, raising(KeyboardInterrupt())),
    "exit": in_a_step(8, raising(SystemExit(3))),
    "SIGTERM": in_a_step(8, sending(signal.SIGTERM)),
    "SIGHUP": in_a_step(8, sending(signal.SIGHUP)),
    "SIGUSR1": in_a_step(8, sending(signal.SIGUSR1)),
    "os.replace": refusing_once,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_ends_in_one_line_and_goes_on_to_the_same_bits(bench, monkeypatch, end):
    flags = {"use_data_augmentation": True, "save_to": None, "nEpochs": 2}
    whole = run(bench, **flags, output_dir=str(bench.root / "whole"))
    with monkeypatch.context() as patch:
        ENDS[end](patch)
        with pytest.raises(RunFailure, match=r"; go on with: .*--resume ") as caught:
            run(bench, **flags)
    assert "\n" not in str(caught.value)
    out = bench.root / "out"
    results = json.loads((out / "results.json").read_text())
    assert (results["status"], results["reason"]) == ("failed", str(caught.value))
    resumed = run(bench, **flags, resume=str(out))
    assert resumed.best_path.read_bytes() == whole.best_path.read_bytes()
    left, right = (run_state.load_last(each.run_dir) for each in (whole, resumed))
    for key in ("changing", "best", "optimizer", "rng", "history", "selection"):
        assert_equal(left[key], right[key], key)


def test_a_killed_worker_ends_the_run_with_its_state(bench, monkeypatch):
    with monkeypatch.context() as patch:
        worker_killed(patch)
        with pytest.raises(
            RunFailure, match=r"^a loader process broke off .*; the state is in .*ckpt_last\.pth"
        ):
            run(bench, workers=1, save_to=None)
    out = bench.root / "out"
    assert run_state.load_last(out)["epoch"] == 1
    assert document(run(bench, workers=1, save_to=None, resume=str(out)))["status"] == "complete"


def test_a_step_cut_in_two_is_not_saved(bench, monkeypatch):
    """Weights that moved and a record that does not know it would be no state of any run."""
    original, made = torch.amp.GradScaler.step, 0

    def cut(self: Any, optimizer: Any) -> Any:
        nonlocal made
        made += 1
        result = original(self, optimizer)
        if made == 8:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch.amp.GradScaler, "step", cut)
        with pytest.raises(RunFailure, match="interrupted; go on with"):
            run(bench, save_to=None)
    saved = run_state.load_last(bench.root / "out")
    assert (saved["epoch"], saved["progress"]["batches"]) == (1, 0), "the last whole state: that of epoch 0"


def test_curves_that_cannot_be_written_cost_no_run(bench, monkeypatch):
    def full(self: Any, *args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    outcome = quick(bench)
    assert document(outcome)["status"] == "complete"
    log = (outcome.run_dir / "finetuning.log").read_text()
    assert log.count("no more TensorBoard curves: OSError") == 1


def test_the_thread_that_writes_curves_prints_no_traceback(tmp_path, monkeypatch):
    printed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    before = threading.excepthook
    board = TensorBoard(tmp_path / "run", {}, None)
    shutil.rmtree(tmp_path / "run")
    board.scalars({"a": 1.0}, 0)
    with pytest.raises(OSError, match="No such file"):
        board._writer.flush()
    with contextlib.suppress(OSError):
        board.close({})
    assert printed == []
    assert threading.excepthook is before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")
def test_a_log_that_cannot_be_written_costs_no_run(tmp_path, capsys):
    with run_logger([Path("/dev/full"), tmp_path / "file" / "x" / "run.log"]) as logger:
        for number in range(3):
            logger.info("line %d", number)
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert errors.count("/dev/full cannot be written") == 1
    assert len((tmp_path / "file" / "x" / "run.log").read_text().splitlines()) == 3


def test_what_other_parts_warn_of_stands_in_the_runs_log(tmp_path, capsys):
    with run_logger([tmp_path / "run.log"]) as logger:
        logger.warning("of the run")
        logging.getLogger("effort_finetune.data.worker_limits").warning("0 of 4 loader processes are started")
    for text in ((tmp_path / "run.log").read_text(), capsys.readouterr().err):
        assert text.count("WARNING 0 of 4 loader processes") == 1
        assert text.count("WARNING of the run") == 1


def test_results_that_cannot_be_written_are_said(bench, monkeypatch):
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(finetuning, "write_results", refuse)
    with pytest.raises(RunFailure, match=r"results\.json could not be written .*Read-only"):
        quick(bench)


def test_weights_that_another_process_put_there_are_not_tested(bench, monkeypatch):
    original = Engine.finish

    def finish(self: Engine) -> None:
        original(self)
        content = torch.load(self.folder / "ckpt_best.pth", weights_only=True)
        content["head.bias"] += 1
        torch.save(content, self.folder / "ckpt_best.pth")

    monkeypatch.setattr(Engine, "finish", finish)
    with pytest.raises(RunFailure, match=r"ckpt_best\.pth is not what this run wrote"):
        run(bench, nEpochs=1, test_dataset=["Toy"])
    assert not (bench.root / "published" / "effort_toy.pth").exists()


HOLDER = """
import sys, time
from effort_finetune.core.locks import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_run_in_a_folder_names_the_first(bench):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(bench.root / "out")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        started = time.perf_counter()
        with pytest.raises(UserError, match=rf"is in use; got process {first.pid}, since "):
            quick(bench)
        assert time.perf_counter() - started < 60
        assert not (bench.root / "out" / "finetuning.log").exists()
    finally:
        first.kill()
        first.wait()
    assert document(quick(bench))["status"] == "complete", "a lock ends with its process"


def test_a_published_file_is_archived_and_a_folder_refused_at_the_start(bench):
    first = run(bench, nEpochs=1)
    before = first.published_path.read_bytes()
    run(bench, nEpochs=1, **{"optimizer.lr": 5e-2})
    archived = first.published_path.with_name("effort_toy.earlier_1.pth")
    assert archived.read_bytes() == before != first.published_path.read_bytes()
    with pytest.raises(UserError, match=r"--save_to; got .*, which is a folder"):
        run(bench, save_to=str(bench.root / "published"), output_dir=str(bench.root / "new"))
    assert not (bench.root / "new").exists()


def test_what_the_weights_scored_before_the_first_step_is_on_record(bench):
    outcome = run(bench, nEpochs=2, save_to=None)
    training = document(outcome)["training"]
    start = training["start"]
    assert start["epoch"] == "start"
    assert start["selection"]["Toy"].keys() == training["history"][0]["selection"]["Toy"].keys()
    gain = training["gain"]
    assert gain["start"] == start["selection_value"]
    assert len(gain["share_by_epoch"]) == 2
    assert 0 < training["trainable"]["share"] < 1
    assert training["samples_per_second"] > 0
    again = run(bench, nEpochs=3, save_to=None, resume=str(outcome.run_dir))
    assert document(again)["training"]["start"] == start, "measured once a run"


def test_measuring_the_start_changes_no_bit_of_the_training(bench, monkeypatch):
    one = quick(bench, output_dir=str(bench.root / "one"))
    monkeypatch.setattr(Engine, "measure_start", lambda self: None)
    two = quick(bench, output_dir=str(bench.root / "two"))
    assert_equal(state(one.best_path), state(two.best_path))
