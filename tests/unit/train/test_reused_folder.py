"""A run folder that is used again never mixes two runs, and loses none."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.train.loop import TrainingLoop

from .running import quick


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_fresh_run_starts_with_an_empty_folder_and_the_earlier_one_stays_whole(bench):
    out = quick(bench, test_dataset=["Toy", "NoVal"]).run_dir
    first = files(out)
    (out / "notes.txt").write_text("mine")
    quick(bench, test_dataset=["Toy"], nEpochs=2)
    assert files(out / "earlier_1") == first
    assert {p.name for p in (out / "scores").iterdir()} == {"Toy.csv"}
    assert len(list(out.glob("events.out.tfevents.*"))) == 1
    assert (out / "notes.txt").read_text() == "mine"
    log = (out / "finetuning.log").read_text()
    assert f"what an earlier run left in {out} is now in {out / 'earlier_1'}" in log
    assert log.count("command: ") == 1


def test_a_run_that_fails_at_its_first_step_leaves_the_earlier_one_whole(bench, monkeypatch):
    out = quick(bench, test_dataset=["Toy"]).run_dir
    first = files(out)

    def no_memory(self: TrainingLoop, *args: Any) -> float:
        raise RunFailure("out of memory")

    monkeypatch.setattr(TrainingLoop, "_step", no_memory)
    with pytest.raises(RunFailure):
        quick(bench)
    assert files(out / "earlier_1") == first
    assert not (out / "ckpt_best.pth").exists()
    assert json.loads((out / "results.json").read_text())["status"] == "failed"


def test_a_run_that_cannot_start_moves_nothing(bench):
    out = quick(bench).run_dir
    first = files(out)
    with pytest.raises(UserError):
        quick(bench, unfreeze=["no_such_layer"])
    assert files(out) == first


def test_a_resumed_run_keeps_its_folder_and_moves_only_what_it_had_measured(bench):
    out = quick(bench, test_dataset=["NoVal"]).run_dir
    scores = (out / "scores" / "NoVal.csv").read_bytes()
    quick(bench, nEpochs=2, test_dataset=["Toy"], resume=str(out), output_dir=None)
    assert {p.name for p in (out / "scores").iterdir()} == {"Toy.csv"}
    assert (out / "earlier_1" / "scores" / "NoVal.csv").read_bytes() == scores
    assert set(json.loads((out / "earlier_1" / "results.json").read_text())["datasets"]) == {"NoVal"}
    assert {p.name for p in (out / "earlier_1").iterdir()} == {"results.json", "settings.yaml", "scores"}
    assert (out / "finetuning.log").read_text().count("command: ") == 2


def test_a_resumed_run_into_another_runs_folder_moves_that_run(bench):
    one = quick(bench, output_dir=str(bench.root / "one")).run_dir
    two = quick(bench, output_dir=str(bench.root / "two")).run_dir
    first = files(two)
    quick(bench, nEpochs=2, resume=str(one), output_dir=str(two))
    assert files(two / "earlier_1") == first
    assert "earlier_1" not in {p.name for p in one.iterdir()}


def test_the_folder_of_the_weights_a_run_starts_from_is_refused(bench):
    """Its record would name a file that holds other weights by then."""
    best = quick(bench).best_path
    before = files(best.parent)
    with pytest.raises(UserError, match=r"--output_dir; got .*pretrained_weights.*--resume"):
        quick(bench, pretrained_weights=str(best))
    assert files(best.parent) == before


def test_what_a_disk_that_was_full_from_the_start_left_does_not_bar_the_folder(bench, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr(logging.FileHandler, "emit", lambda *args: None)
        with pytest.raises(RunFailure, match="No space left"):
            quick(bench)
    assert quick(bench).results_path.is_file()
