"""A run that was stopped and continued is the run that was not, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.data.frames import open_frames
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train import finetuning as run_module
from effort_finetune.train.finetuning import finetune
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.weights import run_state
from effort_finetune.weights.run_state import load_last

from .conftest import COMMAND, Bench

RUN: dict[str, Any] = {
    "nEpochs": 3,
    "lr_scheduler": "cosine",
    "lr_T_max": 3,
    "accumulation_steps": 2,
    "balance": "oversample",
    "use_data_augmentation": True,
    "early_stopping.patience": 3,
}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def assert_equal(left: Any, right: Any, where: str = "") -> None:
    """Compares nested containers, tensors to the bit."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            if key not in ("seconds", "data_seconds", "samples_per_second", "selection_seconds", "resume"):
                assert_equal(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_equal(a, b, f"{where}/{number}")
    else:
        assert left == right, where


def whole_run(bench: Bench, folder: str = "whole", **flags: Any) -> Path:
    settings = bench.settings(**{**RUN, **flags}, output_dir=str(bench.root / folder), save_to=None)
    return finetune(settings, bench.host, command=COMMAND).run_dir


def stopped_run(bench: Bench, monkeypatch: pytest.MonkeyPatch, *, steps: int, **flags: Any) -> Path:
    """Starts a run and sends it a Ctrl-C after ``steps`` optimiser steps."""
    folder = bench.root / "stopped"
    made = 0
    original = TrainingLoop._step

    def counting(self: TrainingLoop, *args: Any) -> float:
        nonlocal made
        made += 1
        result = original(self, *args)
        if made == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_step", counting)
        settings = bench.settings(**{**RUN, **flags}, output_dir=str(folder), save_to=None)
        with pytest.raises(RunFailure, match="interrupted; go on with: .* --resume "):
            finetune(settings, bench.host, command=COMMAND)
    return folder


@pytest.mark.parametrize(("steps", "workers"), [(1, 0), (4, 0), (4, 2)])
def test_interrupted_in_an_epoch_and_resumed_equals_uninterrupted(bench, monkeypatch, steps, workers):
    whole = whole_run(bench, workers=workers)
    stopped = stopped_run(bench, monkeypatch, steps=steps, workers=workers)
    saved = load_last(stopped)
    assert (saved["epoch"], saved["progress"]["batches"]) == ((0, 2) if steps == 1 else (1, 2))
    assert json.loads((stopped / "results.json").read_text())["status"] == "failed"

    settings = bench.settings(**RUN, workers=workers, resume=str(stopped), output_dir=None, save_to=None)
    resumed = finetune(settings, bench.host, command=COMMAND).run_dir
    assert resumed == stopped.resolve()
    left, right = load_last(whole), load_last(resumed)
    assert left.keys() == right.keys()
    for key in left.keys() - {"settings", "processes"}:
        assert_equal(left[key], right[key], key)
    assert_equal(weights(whole / "ckpt_best.pth"), weights(resumed / "ckpt_best.pth"))
    ours = json.loads((resumed / "results.json").read_text())
    theirs = json.loads((whole / "results.json").read_text())
    assert ours["status"] == "complete"
    assert_equal(theirs["training"]["history"], ours["training"]["history"])


@pytest.mark.parametrize(
    "flags",
    [
        {"optimizer.type": "sam", "lr_scheduler": "onecycle", "ema_decay": 0.9},
        {"optimizer.type": "adamw", "lr_scheduler": "plateau", "lr_patience": 0, "optimizer.lr_head": 1e-3},
        {"lr_per": "step", "lr_warmup": 1.5, "optimizer.layer_decay": 0.5, "clip_grad_norm": 0.1},
        {"loss.orth_weight": 1.0, "loss.ksv_weight": 1.0, "optimizer.lr": 1e-2},
    ],
)
def test_every_schedule_and_optimiser_goes_on_to_the_bit(bench, monkeypatch, flags):
    whole = whole_run(bench, **flags)
    stopped = stopped_run(bench, monkeypatch, steps=4, **flags)
    settings = bench.settings(**{**RUN, **flags}, resume=str(stopped), output_dir=None, save_to=None)
    finetune(settings, bench.host, command=COMMAND)
    left, right = load_last(whole), load_last(stopped)
    for key in left.keys() - {"settings", "processes"}:
        assert_equal(left[key], right[key], key)
    assert_equal(weights(whole / "ckpt_best.pth"), weights(stopped / "ckpt_best.pth"))


def test_the_average_is_what_is_measured_and_saved(bench):
    """Of a run that chooses its last epoch, too, and of one exported from its state alone."""
    folder = whole_run(bench, ema_decay=0.9, select_on="last", **{"early_stopping.patience": None})
    saved, best = load_last(folder), weights(folder / "ckpt_best.pth")
    average = saved["average"]["average"]
    assert average.keys() == saved["changing"].keys()
    for name, value in average.items():
        assert torch.equal(best[name], value), name
    assert any(not torch.equal(best[name], value) for name, value in saved["changing"].items())
    if saved["best"] is None:
        (folder / "ckpt_best.pth").unlink()
        assert_equal(dict(weights(run_state.finish(folder)[0])), dict(best))


def test_ctrl_c_during_validation_owes_only_the_validation(bench, monkeypatch):
    whole = whole_run(bench)
    folder = bench.root / "stopped"

    scored: list[int] = []
    frames = open_frames(bench.host, bench.settings(**RUN), split="val", names=["Toy"])
    original = EffortFinetuneDetector.forward

    def interrupting(self: EffortFinetuneDetector, batch: dict[str, Any], inference: bool = False) -> Any:
        if inference:
            scored.append(len(batch["label"]))
            if len(scored) > len(frames):  # the weights before the first step are measured whole
                os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, inference)

    settings = bench.settings(**RUN, test_batchSize=1, output_dir=str(folder), save_to=None)
    with monkeypatch.context() as patch:
        patch.setattr(EffortFinetuneDetector, "forward", interrupting)
        with pytest.raises(RunFailure, match="interrupted"):
            finetune(settings, bench.host, command=COMMAND)
    assert scored == [1] * (len(frames) + 1), "the signal has to end the validation before its next batch"
    saved = load_last(folder)
    assert (saved["epoch"], saved["progress"]["batches"], saved["history"]) == (0, 6, [])
    settings = bench.settings(**RUN, resume=str(folder / "ckpt_last.pth"), output_dir=None, save_to=None)
    resumed = finetune(settings, bench.host, command=COMMAND).run_dir
    assert_equal(load_last(whole)["changing"], load_last(resumed)["changing"])
    assert_equal(load_last(whole)["history"], load_last(resumed)["history"])


def test_a_longer_run_goes_on_from_a_finished_one(bench):
    whole = whole_run(bench, nEpochs=3)
    short = whole_run(bench, folder="short", nEpochs=2)
    settings = bench.settings(**RUN, resume=str(short), output_dir=str(bench.root / "on"), save_to=None)
    on = finetune(settings, bench.host, command=COMMAND).run_dir
    assert_equal(load_last(whole)["changing"], load_last(on)["changing"])
    assert_equal(weights(whole / "ckpt_best.pth"), weights(on / "ckpt_best.pth"))


def test_the_selected_weights_come_along_to_another_folder(bench):
    """Even if no later epoch is better: here the run had ended already."""
    run = whole_run(bench, nEpochs=1)
    flags = {**RUN, "nEpochs": 1, "resume": str(run), "test_dataset": ["Toy"]}
    settings = bench.settings(**flags, output_dir=str(bench.root / "on"))
    on = finetune(settings, bench.host, command=COMMAND)
    assert_equal(weights(run / "ckpt_best.pth"), weights(on.best_path))
    assert on.published_path.is_file()
    (run / "ckpt_best.pth").unlink()  # the state has them, too
    again = finetune(settings, bench.host, command=COMMAND)
    assert_equal(weights(on.best_path), weights(again.best_path))


def test_another_runs_checkpoints_in_the_folder_are_not_taken_for_ours(bench, monkeypatch):
    folder = whole_run(bench, nEpochs=1)

    def interrupted(self: TrainingLoop, *args: Any) -> float:
        self.is_whole = False
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "_step", interrupted)
    settings = bench.settings(**RUN, output_dir=str(folder), save_to=None)
    with pytest.raises(RunFailure, match="interrupted; nothing was saved yet"):
        finetune(settings, bench.host, command=COMMAND)
    assert json.loads((folder / "results.json").read_text())["checkpoint"] is None


def test_other_settings_are_refused_by_name(bench):
    short = whole_run(bench, nEpochs=1)
    settings = bench.settings(**{**RUN, "train_batchSize": 2, "optimizer.lr": 0.5}, resume=str(short))
    with pytest.raises(UserError) as caught:
        finetune(settings, bench.host, command=COMMAND)
    assert "train_batchSize 2 instead of 4" in str(caught.value)
    assert str(caught.value).count("optimizer") == 1, "the one key, not the whole block"
    assert "optimizer.lr 0.5 instead of 0.001" in str(caught.value)


def test_an_oracle_does_not_change_its_test_sets(bench):
    run = whole_run(bench, nEpochs=1, select_on="test", test_dataset=["Toy"])
    settings = bench.settings(**RUN, select_on="test", test_dataset=["NoVal"], resume=str(run))
    with pytest.raises(UserError, match="test_dataset"):
        finetune(settings, bench.host, command=COMMAND)


def test_a_run_is_resumed_by_its_own_file_alone(bench):
    """Not from where it began, which the same command line still names and which may be gone."""
    start = whole_run(bench, folder="start", nEpochs=1, residual_rank=2) / "ckpt_best.pth"
    began = {"pretrained_weights": str(start), "clip_path": str(bench.root / "nowhere")}
    whole = whole_run(bench, **began)
    part = whole_run(bench, folder="part", nEpochs=1, **began)
    start.unlink()
    settings = bench.settings(**{**RUN, **began}, resume=str(part), output_dir=None, save_to=None)
    resumed = finetune(settings, bench.host, command=COMMAND)
    assert_equal(load_last(whole)["changing"], load_last(resumed.run_dir)["changing"])
    record = json.loads(resumed.results_path.read_text())["training"]
    assert record["start_weights"]["path"] == str(start)


def test_a_resumed_tower_keeps_the_activation_that_no_tensor_tells(bench):
    config = bench.root / "clip" / "config.json"
    clip = bench.root / "gelu"
    clip.mkdir()
    (clip / "config.json").write_text(config.read_text().replace("quick_gelu", "gelu"))
    (clip / "model.safetensors").symlink_to(bench.root / "clip" / "model.safetensors")
    whole = whole_run(bench, nEpochs=2, clip_path=str(clip))
    part = whole_run(bench, folder="part", nEpochs=1, clip_path=str(clip))
    settings = bench.settings(**{**RUN, "nEpochs": 2}, resume=str(part), output_dir=None, save_to=None)
    resumed = finetune(settings, bench.host, command=COMMAND).run_dir
    assert_equal(load_last(whole)["changing"], load_last(resumed)["changing"])
    assert_equal(load_last(whole)["history"], load_last(resumed)["history"])


@pytest.mark.parametrize("content", [None, b"not a checkpoint", b""])
def test_what_cannot_be_resumed_is_a_user_error(bench, content):
    path = bench.root / "ckpt_last.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="--resume"):
        finetune(bench.settings(**RUN, resume=str(path)), bench.host, command=COMMAND)


def test_weights_are_no_training_state(bench):
    run = whole_run(bench, nEpochs=1)
    settings = bench.settings(**RUN, resume=str(run / "ckpt_best.pth"))
    with pytest.raises(UserError, match="--pretrained_weights"):
        finetune(settings, bench.host, command=COMMAND)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from effort_finetune.core import files
from effort_finetune.weights import run_state as checkpoint
from effort_finetune.weights.run_state import load_last

path = Path(sys.argv[1])
state = {"changing": {"weight": torch.randn(4, 4)}}
checkpoint.save_last(path, {**state, "epoch": 1})
before = path.read_bytes()
save = torch.save

def cut_off(obj, stream):
    save(obj, stream)
    stream.truncate(stream.tell() // 2)
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = cut_off
checkpoint.save_last(path, {**state, "epoch": 2})
"""


def test_kill_9_while_writing_leaves_the_last_good_file(tmp_path):
    path = tmp_path / "ckpt_last.pth"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load_last(path)["epoch"] == 1


def test_second_ctrl_c_stops_at_once(bench, monkeypatch):
    def twice(self: TrainingLoop, *args: Any) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        raise AssertionError("the second signal has to end the step")

    monkeypatch.setattr(TrainingLoop, "_step", twice)
    with pytest.raises(RunFailure, match="interrupted; go on with"):
        run_module.finetune(bench.settings(**RUN), bench.host, command=COMMAND)
