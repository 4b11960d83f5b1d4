"""What a choice by validation is worth, said where it is worth little."""

from __future__ import annotations

from typing import Any

import pytest

from effort_finetune.train.run_record import gain
from effort_finetune.train.selection import Selector
from effort_finetune.train.validation import choice_warnings

from .running import document, run

MANY = {"Toy": (60, 60)}


def told(
    values: list[float],
    *,
    start: float = 0.1,
    interval: list[float] | None = None,
    metric: str = "video_auc",
    videos: dict[str, tuple[int, int]] = MANY,
) -> list[str]:
    """Returns the warnings of a run whose epochs scored ``values``."""
    selector, history = Selector("val", metric), []
    for epoch, value in enumerate(values):
        entry: dict[str, Any] = {
            "epoch": epoch,
            "selection": {"Toy": {metric: value}},
            "selection_value": value,
        }
        if selector.consider(epoch, {"Toy": value}, {"Toy": 1.0}):
            entry["selection_interval"] = {"Toy": interval}
        history.append(entry)
    return choice_warnings(selector, {"selection_value": start}, history, videos)


def test_a_clear_choice_says_nothing():
    assert told([0.7, 0.9], interval=[0.87, 0.93]) == []
    assert told([0.7, 0.9], interval=[0.8, 0.97]) == [], "wide, but the other epoch lies outside"


def test_val_is_too_small_where_any_epoch_might_have_been_chosen():
    (warning,) = told([0.85, 0.9], interval=[0.8, 0.97])
    assert "val is too small to choose an epoch: video_auc 0.9000 has a 95 % interval 0.17 wide" in warning
    assert told([0.89, 0.9], interval=[0.87, 0.93]) == [], "narrow: the epochs are equal, not val small"


def test_few_videos_are_said_whatever_the_interval():
    (warning,) = told([0.5, 1.0], videos={"Toy": (2, 30)})
    assert "Toy has 2 real and 30 fake videos" in warning
    assert told([1.0], videos={"Toy": (2, 2)}) == [], "one epoch is no choice"


@pytest.mark.parametrize(("metric", "perfect"), [("video_auc", 1.0), ("ap", 1.0), ("video_eer", 0.0)])
def test_few_videos_without_an_error_choose_nothing(metric, perfect):
    (warning,) = told(
        [0.6, perfect], metric=metric, start=0.5 + 0.5 * (1 - perfect), videos={"Toy": (10, 12)}
    )
    assert warning.endswith(
        f"{metric} is {perfect:g} on 10 real and 12 fake videos of Toy, and 10 without an error leave "
        "room for an error rate of 31 %"
    )
    assert warning.startswith("val is too small to choose an epoch: ")
    assert told([perfect], metric=metric, start=0.7, videos={"Toy": (10, 12)}) == [], "one epoch is no choice"
    assert told([0.6, perfect], metric=metric, start=0.7) == [], "of 60 it bounds the error rate at 6 %"


def test_an_auc_below_one_half_and_a_run_that_gained_nothing_are_said():
    below, nothing = told([0.0, 0.0], start=0.3)
    assert "Toy: video_auc 0.0000 is below 0.5" in below
    assert (
        "no epoch was better than the weights before the first step: video_auc 0.3000 then, 0.0000" in nothing
    )
    assert told([0.2, 0.1], start=0.3, metric="video_eer") == []
    assert len(told([0.4], start=0.3, metric="video_eer")) == 1


@pytest.mark.parametrize(
    ("metric", "start", "values", "shares"),
    [
        ("video_auc", 0.5, [0.7, 0.9, 0.8], [0.5, 1.0, 0.75]),
        ("eer", 0.5, [0.3, 0.1], [0.5, 1.0]),
        ("auc", 0.9, [0.8, 0.7], [None, None]),
    ],
)
def test_the_share_of_the_gain_by_epoch(metric, start, values, shares):
    selector = Selector("val", metric)
    for epoch, value in enumerate(values):
        selector.consider(epoch, {"Toy": value}, {})
    history = [{"selection_value": value} for value in values]
    found = gain({"selection_value": start}, history, selector)
    assert found["share_by_epoch"] == pytest.approx(shares)
    assert gain(None, history, selector)["share_by_epoch"] == [None] * len(values)


def test_a_run_on_four_val_videos_says_so(bench):
    outcome = run(bench, save_to=None)
    assert any("2 real and 2 fake" in w for w in document(outcome)["training"]["selection"]["warnings"])
    assert "val is too small to choose" in (outcome.run_dir / "finetuning.log").read_text()
