"""What a run that cannot go on leaves behind is true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.train.loop import TrainingLoop

from .conftest import Bench, write_dataset
from .running import document, quick, run, state


def own_data(bench: Bench) -> None:
    """Replaces the shared datasets by an empty folder of this test's own."""
    for name in ("json", "lmdb"):
        (bench.root / name).unlink()


def test_numbers_of_a_validation_that_failed_are_not_shown_as_test_numbers(bench):
    own_data(bench)
    write_dataset(bench.root, "Toy", {"train": 2, "val": 2, "test": 2})
    write_dataset(bench.root, "Broken", {"val": 2}, leave_out=3)
    with pytest.raises(RunFailure, match="val frames of Broken could not be read"):
        quick(bench, val_dataset=["Toy", "Broken"], test_dataset=["Toy"])
    results = json.loads((bench.root / "out" / "results.json").read_text())
    assert results["status"] == "failed"
    assert results["datasets"] == {}


def test_a_run_whose_data_changed_is_not_resumed(bench):
    own_data(bench)
    write_dataset(bench.root, "Toy", {"train": 2, "val": 2})
    out = quick(bench).run_dir
    index = bench.root / "json" / "Toy.json"
    before = index.read_text()
    listed = json.loads(before)
    fakes = listed["Toy"]["Toy_Fake"]["train"]
    fakes.pop(next(iter(fakes)))
    index.write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"--resume; got other training frames than.*--pretrained_weights"):
        quick(bench, nEpochs=2, resume=str(out))
    listed = json.loads(before)
    listed["Toy"]["Toy_Real"]["val"] = listed["Toy"]["Toy_Real"]["train"]
    index.write_text(json.dumps(listed))
    with pytest.raises(UserError, match="got other frames of Toy, which choose the checkpoint"):
        quick(bench, nEpochs=2, resume=str(out))
    index.write_text(before)
    quick(bench, nEpochs=2, resume=str(out))


def test_a_resumed_run_cannot_have_fewer_epochs_than_are_done(bench):
    out = quick(bench, nEpochs=2).run_dir
    with pytest.raises(UserError, match=r"nEpochs; got 1; expected at least 2, which are done"):
        quick(bench, nEpochs=1, resume=str(out))
    quick(bench, nEpochs=2, resume=str(out))


def test_a_bug_leaves_its_traceback_in_the_log(bench, monkeypatch, capsys):
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(TrainingLoop, "_step", broken)
    with pytest.raises(RunFailure, match=r"^ZeroDivisionError: a bug; go on with: .*--resume") as caught:
        run(bench)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "ZeroDivisionError: a bug" in (bench.root / "out" / "finetuning.log").read_text()
    assert "a bug" not in capsys.readouterr().err


def test_non_finite_loss_ends_the_run_with_what_there_is(bench):
    with pytest.raises(RunFailure, match=r"not finite.*learning rate.*frames: |gradient is not finite"):
        run(bench, **{"optimizer.type": "sgd", "optimizer.lr": 1e30})
    results = json.loads((bench.root / "out" / "results.json").read_text())
    assert results["status"] == "failed"
    assert "finite" in results["reason"]
    saved = state(bench.root / "out" / "ckpt_last.pth")
    assert saved["epoch"] == 0
    assert results["training"]["published"] is None
    assert not (bench.root / "published" / "effort_toy.pth").exists()


def test_a_checkpoint_that_cannot_be_published_is_kept_and_said(bench, monkeypatch):
    def refuse(source: Path, target: Path) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr("effort_finetune.train.run_files._link_or_copy", refuse)
    with pytest.raises(RunFailure, match=r"read-only.*ckpt_best\.pth"):
        run(bench, nEpochs=1)
    results = json.loads((bench.root / "out" / "results.json").read_text())
    assert (results["status"], results["training"]["published"]) == ("failed", None)
    assert results["checkpoint"]["path"].endswith("ckpt_best.pth")


def test_a_full_disk_ends_the_run_with_its_history(bench, monkeypatch):
    def full(obj: object, target: Path) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunFailure, match="cannot be written .*nothing was saved yet"):
        run(bench)
    results = json.loads((bench.root / "out" / "results.json").read_text())
    assert results["status"] == "failed"
    assert results["checkpoint"] is None


def test_missing_training_frames_above_the_rate_fail(bench):
    (bench.root / "json").unlink()
    (bench.root / "lmdb").unlink()
    write_dataset(bench.root, "Toy", {"train": 4, "val": 1}, leave_out=2)
    with pytest.raises(
        RunFailure, match=r"2 of 24 training frames could not be read \(8\.33%, allowed 1\.00%\)"
    ):
        run(bench)
    resumed = run(bench, max_missing_rate=0.1, resume=str(bench.root / "out"), output_dir=None)
    assert document(resumed)["training"]["epochs"]["done"] == 2, "what the message advises goes on"
    outcome = run(bench, max_missing_rate=0.1)
    history = document(outcome)["training"]["history"]
    assert [(e["train"]["samples"], e["train"]["missing"]) for e in history] == [(22, 2), (22, 2)]
