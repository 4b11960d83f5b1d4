"""Stages of one YAML are the runs typed by hand, and go on from inside any of them."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.evaluate import results as results_file
from effort_finetune.train.loop import TrainingLoop

from .conftest import Bench
from .running import document, run, state
from .test_resume import assert_equal

STAGES: list[dict[str, Any]] = [
    {
        "name": "head",
        "nEpochs": 2,
        "tune_mode": "head",
        "use_data_augmentation": False,
        "optimizer": {"lr": 1e-2},
    },
    {
        "nEpochs": 2,
        "tune_mode": "residual",
        "optimizer": {"lr": 1e-3},
        "lr_scheduler": "cosine",
        "lr_T_max": 2,
    },
    {
        "nEpochs": 1,
        "tune_mode": "residual",
        "unfreeze": ["attention"],
        "optimizer": {"lr": 1e-4, "lr_unfrozen": 1e-5},
    },
]
COMMON: dict[str, Any] = {"test_dataset": ["Toy"], "bootstrap_samples": 20, "use_data_augmentation": True}


def staged(bench: Bench, folder: str = "staged", **flags: Any):
    return run(bench, **{**COMMON, "stages": STAGES, "output_dir": str(bench.root / folder), **flags})


def by_hand(bench: Bench) -> list[Any]:
    """Each stage as a command of its own, from the checkpoint of the one before it."""
    outcomes: list[Any] = []
    for number, stage in enumerate(STAGES):
        flags = {key: value for key, value in stage.items() if key not in ("name", "optimizer")}
        flags |= {f"optimizer.{key}": value for key, value in stage["optimizer"].items()}
        weights = str(outcomes[-1].best_path) if outcomes else None
        outcomes.append(
            run(
                bench,
                **{
                    **COMMON,
                    **flags,
                    "pretrained_weights": weights,
                    "output_dir": str(bench.root / f"hand_{number}"),
                },
            )
        )
    return outcomes


def measured(found: dict[str, Any]) -> Any:
    """What was measured, to the last digit."""
    return {name: (block["frame"], block["video"]) for name, block in found["datasets"].items()}


def test_three_stages_are_the_three_commands_by_hand(bench):
    whole, hand = staged(bench), by_hand(bench)
    ours, theirs = document(whole), [document(outcome) for outcome in hand]
    assert_equal(measured(ours), measured(theirs[-1]))
    assert ours["average"] == theirs[-1]["average"]
    assert_equal(dict(state(whole.best_path)), dict(state(hand[-1].best_path)))
    records = [*ours["training"]["earlier_stages"], ours["training"]]
    for record, other in zip(records, theirs, strict=True):
        assert_equal(record["history"], other["training"]["history"])
        assert_equal(record["trainable"], other["training"]["trainable"])
    assert ours["settings"]["stages"] == STAGES, "the settings of the whole run, as they were given"
    assert whole.published_path is not None
    assert whole.run_dir == (bench.root / "staged").resolve()
    left = {path.name for path in (bench.root / "staged" / "stage_1").iterdir()}
    assert "ckpt_best.pth" in left
    assert not any(name.startswith(("ckpt_last", "frozen")) for name in left), (
        "only a continuation needs them"
    )


@pytest.mark.parametrize("steps", [7, 26])
def test_interrupted_in_any_stage_and_resumed_equals_uninterrupted(bench, monkeypatch, steps):
    whole = staged(bench)
    made = 0
    original = TrainingLoop._step

    def counting(self: TrainingLoop, *args: Any) -> float:
        nonlocal made
        made += 1
        result = original(self, *args)
        if made == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    folder = bench.root / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_step", counting)
        with pytest.raises(RunFailure, match=f"stage .: interrupted; go on with: .* --resume {folder}$"):
            staged(bench, "stopped")
    assert results_file.read(folder)["status"] == "failed"
    again = run(bench, **{**COMMON, "stages": STAGES, "resume": str(folder), "output_dir": None})
    assert again.run_dir == folder.resolve()
    assert_equal(dict(state(whole.best_path)), dict(state(again.best_path)))
    left, right = document(whole), document(again)
    assert_equal(measured(left), measured(right))
    assert right["status"] == "complete"
    assert_equal(left["training"]["history"], right["training"]["history"])


def test_what_a_later_stage_cannot_do_is_said_before_the_first(bench):
    wrong = [{"nEpochs": 1}, {"lr_scheduler": "plateau", "lr_warmup": 1}]
    with pytest.raises(UserError, match="stage 2: lr_warmup"):
        staged(bench, stages=wrong)
    assert not (bench.root / "staged").exists()


def test_a_finished_stage_keeps_its_settings(bench, monkeypatch):
    staged_once = [STAGES[0], STAGES[1]]
    original = TrainingLoop._step

    def only_the_head(self: TrainingLoop, *args: Any) -> float:
        if len(self.parameters) > 2:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_step", only_the_head)
        with pytest.raises(RunFailure, match="stage 2: interrupted"):
            staged(bench, stages=staged_once)
    changed = [{**STAGES[0], "nEpochs": 3}, STAGES[1]]
    with pytest.raises(UserError, match="nEpochs 3 of stage_1, which is finished"):
        staged(bench, stages=changed, resume=str(bench.root / "staged"), output_dir=None)
    changed = [{**STAGES[0], "optimizer": {"lr": 0.5}}, STAGES[1]]
    with pytest.raises(UserError, match="optimizer.lr 0.5 instead of 0.01"):
        staged(bench, stages=changed, resume=str(bench.root / "staged"), output_dir=None)
    done = staged(bench, stages=staged_once, resume=str(bench.root / "staged"), output_dir=None)
    assert document(done)["training"]["stage"] == 2
    assert all(torch.isfinite(value).all() for value in state(done.best_path).values())


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"unfreeze": ["atention"]}, "stage 3: unfreeze pattern 'atention'; .*next: try 'attention'"),
        ({"layer_range": [0, 9]}, "stage 3: layer_range"),
        ({"tune_mode": "lora", "unfreeze": ["nothing_like_it"]}, "stage 3: unfreeze pattern"),
    ],
)
def test_what_a_later_stage_cannot_train_is_told_before_data_is_read(bench, changes, what, monkeypatch):
    from effort_finetune.train import setup

    monkeypatch.setattr(setup, "open_data", lambda *_, **__: pytest.fail("data was read"))
    with pytest.raises(UserError, match=what):
        staged(bench, stages=[*STAGES[:2], {**STAGES[2], **changes}])
    assert not (bench.root / "staged").exists()


def test_no_save_ckpt_leaves_no_stages_weights_either(bench):
    quick_stages = [{"nEpochs": 1, "tune_mode": "head"}, {"nEpochs": 1}]
    outcome = staged(bench, stages=quick_stages, save_ckpt=False)
    assert not list(outcome.run_dir.rglob("*.pth"))
    assert document(outcome)["status"] == "complete"
    assert (outcome.run_dir / "stage_1" / "results.json").is_file()
    with pytest.raises(UserError, match="--output_dir; got .*elsewhere for the stages of .*staged"):
        staged(bench, "elsewhere", stages=quick_stages, resume=str(outcome.run_dir))
