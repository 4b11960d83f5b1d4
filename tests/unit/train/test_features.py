"""A head trained on features computed once is the head trained on the frames."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch

from effort_finetune.core.errors import RunFailure
from effort_finetune.evaluate import results as results_file
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train import features, setup
from effort_finetune.train.finetuning import finetune
from effort_finetune.weights.reader import read_checkpoint
from effort_finetune.weights.run_state import load_last

from .conftest import COMMAND, Bench, write_dataset

HEAD: dict[str, Any] = {
    "tune_mode": "head",
    "use_data_augmentation": False,
    "nEpochs": 3,
    "save_to": None,
    "optimizer.lr": 0.05,
    "accumulation_steps": 2,
    "balance": "oversample",
}


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """Batches that the tower was given, by their size."""
    sizes: list[int] = []
    original = EffortFinetuneDetector.features

    def counting(self: EffortFinetuneDetector, data: dict[str, Any]) -> torch.Tensor:
        sizes.append(len(data["image"]))
        return original(self, data)

    monkeypatch.setattr(EffortFinetuneDetector, "features", counting)
    return sizes


def run(bench: Bench, folder: str, **flags: Any) -> dict[str, Any]:
    settings = bench.settings(**{**HEAD, "output_dir": str(bench.root / folder), **flags})
    outcome = finetune(settings, bench.host, command=COMMAND)
    state = read_checkpoint(outcome.last_path).tensors
    log = (outcome.run_dir / "finetuning.log").read_text()
    return {"results": results_file.read(outcome.results_path), "state": state, "log": log}


def numbers(history: list[dict[str, Any]]) -> list[Any]:
    return [(e["train"]["loss"], e["train"]["samples"], e["selection"], e["selected"]) for e in history]


def apart(metrics: dict[str, float | None]) -> tuple[set[str], dict[str, float]]:
    """Names of the metrics that are null, and the others; which a precision is depends on the last bits."""
    known = {name: value for name, value in metrics.items() if value is not None}
    return set(metrics) - set(known), known


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_run_with_the_tower_asked_once(bench, seen, monkeypatch, workers):
    once = run(bench, "once", workers=workers)
    assert sum(seen) == 24 + 12, "24 training and 12 validation frames"
    assert "features of 36 frames take 4,608 bytes and are computed once" in once["log"]
    monkeypatch.setattr(setup, "feature_run", lambda *args: None)
    every = run(bench, "every", workers=workers)
    assert sum(seen) == 36 + 12 + 3 * 36, "the weights before the first step are measured, too"
    said = [r["results"]["training"]["data"]["features"] for r in (once, every)]
    assert said == ["computed once", "every epoch"]
    for name, tensor in every["state"].items():
        torch.testing.assert_close(once["state"][name], tensor, rtol=1e-4, atol=1e-6)
    left, right = (numbers(r["results"]["training"]["history"]) for r in (once, every))
    assert len(left) == 3
    for ours, theirs in zip(left, right, strict=True):
        assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
        assert ours[1] == theirs[1]
        (unknown, known), (same, expected) = (apart(found["Toy"]) for found in (ours[2], theirs[2]))
        assert unknown == same
        assert known == pytest.approx(expected, rel=1e-4)
        assert ours[3] == theirs[3]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"tune_mode": "residual", "layer_range": [1, 1], "residual_rank": 2}, "nothing before block 1"),
        ({"unfreeze": ["layers.1.mlp"], "optimizer.lr": 1e-3}, "nothing before block 1"),
        ({"unfreeze": ["post_layernorm"]}, "nothing before block 2"),
    ],
)
def test_a_frozen_prefix_is_computed_once_and_the_run_is_the_same(bench, seen, monkeypatch, flags, said):
    flags = {"nEpochs": 2, "optimizer.lr": 0.01, **flags}
    once = run(bench, "once", **flags)
    assert said in once["log"]
    assert not seen, "the whole tower is asked of no frame"
    monkeypatch.setattr(setup, "feature_run", lambda *args: None)
    every = run(bench, "every", **flags)
    assert sum(seen) == 12 + 2 * 36
    for name, tensor in every["state"].items():
        torch.testing.assert_close(once["state"][name], tensor, rtol=1e-3, atol=1e-5)
    left, right = (numbers(r["results"]["training"]["history"]) for r in (once, every))
    for ours, theirs in zip(left, right, strict=True):
        assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
        assert ours[1] == theirs[1]


def test_missing_frames_are_missing_in_every_epoch(bench):
    for name in ("json", "lmdb"):
        (bench.root / name).unlink()
    write_dataset(bench.root, "Toy", {"train": 4, "val": 1}, leave_out=2)
    history = run(bench, "out", max_missing_rate=0.1, balance="none")["results"]["training"]["history"]
    assert [(e["train"]["samples"], e["train"]["missing"]) for e in history] == [(22, 2)] * 3


def test_an_interrupted_run_computes_them_again_and_goes_on(bench, monkeypatch):
    whole = run(bench, "whole")
    steps = 0
    original = features.OnFeatures.get_losses

    def interrupting(self: features.OnFeatures, *args: Any) -> dict[str, torch.Tensor]:
        nonlocal steps
        steps += 1
        if steps == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(features.OnFeatures, "get_losses", interrupting)
        with pytest.raises(RunFailure, match="interrupted"):
            run(bench, "part")
    saved = load_last(bench.root / "part")
    assert (saved["epoch"], saved["progress"]["batches"]) == (1, 2)
    resumed = run(bench, "part", resume=str(bench.root / "part"))
    for name, tensor in whole["state"].items():
        torch.testing.assert_close(resumed["state"][name], tensor, rtol=0, atol=0)


def test_ctrl_c_while_they_are_computed_loses_nothing(bench, monkeypatch):
    original = EffortFinetuneDetector.features

    def interrupting(self: EffortFinetuneDetector, data: dict[str, Any]) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(EffortFinetuneDetector, "features", interrupting)
        with pytest.raises(RunFailure, match="interrupted; go on with"):
            run(bench, "part", test_batchSize=4)
    assert load_last(bench.root / "part")["epoch"] == 0
    assert run(bench, "part", resume=str(bench.root / "part"))["results"]["status"] == "complete"


def test_a_worker_that_dies_with_an_interrupted_run_is_an_interruption(bench, monkeypatch):
    def dying(self: EffortFinetuneDetector, data: dict[str, Any]) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

    monkeypatch.setattr(EffortFinetuneDetector, "features", dying)
    with pytest.raises(RunFailure, match="interrupted; go on with"):
        run(bench, "part")


@pytest.mark.parametrize(
    "flags", [{"use_data_augmentation": True}, {"tune_mode": "residual"}, {"unfreeze": ["pre_layrnorm"]}]
)
def test_a_tower_or_frames_that_change_are_computed_every_epoch(bench, seen, flags):
    log = run(bench, "out", **flags, nEpochs=2)["log"]
    assert sum(seen) == 12 + 2 * 36
    assert "computed once" not in log


def test_a_tower_with_dropout_is_computed_every_epoch(bench, seen, monkeypatch):
    build = setup.build_model

    def with_dropout(*args: Any) -> EffortFinetuneDetector:
        model = build(*args)
        model.backbone.config.attention_dropout = 0.1
        return model

    monkeypatch.setattr(setup, "build_model", with_dropout)
    run(bench, "out", nEpochs=2)
    assert sum(seen) == 12 + 2 * 36


def test_features_larger_than_memory_allows_are_not_kept_and_it_is_said(bench, seen, monkeypatch):
    monkeypatch.setattr(features, "host_memory", lambda: 4 * 4607)
    log = run(bench, "out", nEpochs=2)["log"]
    assert sum(seen) == 12 + 2 * 36
    assert "more than a quarter of the memory: they are computed in every epoch" in log


def test_memory_that_runs_out_is_a_run_failure(bench, monkeypatch):
    def full(self: EffortFinetuneDetector, data: dict[str, Any]) -> torch.Tensor:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(EffortFinetuneDetector, "features", full)
    with pytest.raises(RunFailure, match="lower test_batchSize"):
        run(bench, "out")
