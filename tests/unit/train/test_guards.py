"""Each row of the troubleshooting table, its trouble planted."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from effort_finetune.core.errors import RunFailure
from effort_finetune.train import guards
from effort_finetune.train.guards import GUARDS, Watched, findings
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.selection import Selector

from .conftest import LABELS, Bench
from .running import document, run


def entry(epoch: int, train: float, val: float, value: float = 0.9, **counts: float) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train": {"loss": {"overall": train}, "seconds": 10.0, "data_seconds": 0.0, **counts},
        "selection": {"Toy": {"loss": val}},
        "selection_value": value,
    }


def watched(history: list[dict[str, Any]], *, start: float = 0.5, over: bool = True) -> Watched:
    selector = Selector("val", "video_auc")
    for one in history:
        selector.consider(one["epoch"], {"Toy": one["selection_value"]}, {"Toy": 1.0})
    return Watched({"selection_value": start}, history, selector, over)


def names(seen: Watched) -> set[str]:
    return {finding["guard"] for finding in findings(seen)}


def test_a_good_run_is_left_in_peace():
    good = [entry(0, 0.6, 0.6, 0.8), entry(1, 0.4, 0.5, 0.9), entry(2, 0.3, 0.45, 0.91)]
    assert findings(watched(good)) == []
    assert findings(watched([])) == []


def test_overfitting_is_a_gap_that_opens_over_epochs():
    history = [entry(0, 0.6, 0.5), entry(1, 0.4, 0.6), entry(2, 0.2, 0.8)]
    (found,) = findings(watched(history))
    assert found["guard"] == "overfitting"
    assert "from -0.1000 to +0.6000" in found["says"]
    assert "early_stopping" in found["next"]
    assert names(watched(history[:2])) == set(), "one epoch is no course"


def test_waiting_for_frames_is_slow_training():
    (found,) = findings(watched([entry(0, 0.6, 0.6, data_seconds=6.0)]))
    assert found["guard"] == "slow training"
    assert "60% of epoch 0" in found["says"]
    assert names(watched([entry(0, 0.6, 0.6, seconds=1.0, data_seconds=0.9)])) == set(), "not worth a word"


def test_convergence_that_is_slow_or_not_over():
    still = watched([entry(0, 0.7, 0.7, 0.8), entry(1, 0.6, 0.6, 0.85), entry(2, 0.5, 0.5, 0.95)])
    assert names(still) == {"slow convergence"}
    assert names(watched([entry(0, 0.7, 0.6), entry(1, 0.6999, 0.6)])) == {"slow convergence"}


def test_low_accuracy_says_before_and_after_and_what_the_data_say(bench: Bench):
    """Labels that the pictures do not tell: noise alone."""
    outcome = run(bench, nEpochs=2, save_to=None, label_dict=LABELS, **{"optimizer.lr": 1e-9})
    said = {finding["guard"]: finding for finding in document(outcome)["training"]["findings"]}
    assert "slow convergence" in said
    best = document(outcome)["training"]["selection"]["value"]
    assert ("low accuracy" in said) == (best < guards.LOW)
    log = (outcome.run_dir / "finetuning.log").read_text()
    assert log.count("slow convergence: ") == 1, "said once a run"
    seen = watched([entry(0, 0.69, 0.69, 0.55)], start=0.52)
    (low,) = findings(Watched(seen.start, seen.history, seen.selector, True, ["all one class"]))
    assert low["guard"] == "low accuracy"
    assert "0.5200 before the first step, 0.5500" in low["says"]
    assert "all one class" in low["says"]
    assert findings(watched([entry(0, 0.69, 0.69, 0.55)], over=False)) == [], "not before its end"


def _planted(patch: pytest.MonkeyPatch, trouble: str) -> None:
    original = TrainingLoop._groups

    def groups(self: TrainingLoop, batches: Any) -> Any:
        for group in original(self, batches):
            for batch in group:
                batch["image"].fill_(float("nan") if trouble == "frames" else 1e30)
            yield group

    patch.setattr(TrainingLoop, "_groups", groups)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("frames", "4 of its 4 frames hold values"), ("normalisation", r"its pixels reach 1e\+30")],
)
def test_frames_are_looked_at_before_the_rate_is_blamed(bench, monkeypatch, trouble, words):
    _planted(monkeypatch, trouble)
    with pytest.raises(RunFailure, match=words) as caught:
        run(bench, save_to=None)
    assert "optimizer.lr" not in str(caught.value)
    (found,) = json.loads((bench.root / "out" / "results.json").read_text())["training"]["findings"]
    assert found["guard"] == "non-finite loss"


def test_a_rate_that_is_too_high_is_blamed_when_all_else_is_fine(bench):
    with pytest.raises(RunFailure, match=r"not finite.*optimizer\.lr"):
        run(bench, **{"optimizer.type": "sgd", "optimizer.lr": 1e30})


def test_memory_too_small_for_one_frame_names_what_needs_less(bench, monkeypatch):
    def full(self: TrainingLoop, *args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TrainingLoop, "_backward", full)
    with pytest.raises(RunFailure, match="out of memory on 1 frames at once.*set activation_checkpointing"):
        run(bench, save_to=None)
    (found,) = json.loads((bench.root / "out" / "results.json").read_text())["training"]["findings"]
    assert found["guard"] == "memory"
    assert found["next"].startswith("set activation_checkpointing true")


def test_the_guide_names_every_guard():
    from toyhost import EMBEDDED

    guide = (EMBEDDED.parent / "docs" / "guide.md").read_text()
    for name in [*(guard.name for guard in GUARDS), "memory", "non-finite loss"]:
        assert f"| {name} |" in guide, name
