from __future__ import annotations

import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.train.early_stopping import EarlyStopping
from effort_finetune.train.selection import Selector, mean_of_known


def choose(metric: str, epochs: list[tuple[dict[str, float | None], dict[str, float | None]]]) -> Selector:
    selector = Selector("val", metric)
    for epoch, (values, losses) in enumerate(epochs):
        selector.consider(epoch, values, losses)
    return selector


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("video_auc", [0.5, 0.9, 0.8], 1),
        ("eer", [0.5, 0.1, 0.3], 1),
        ("video_eer", [0.5, 0.1, 0.3], 1),
        ("loss", [0.5, 0.1, 0.3], 1),
        ("auc", [None, 0.4, None], 1),
    ],
)
def test_the_best_epoch_by_the_metrics_direction(metric, values, expected):
    report = choose(metric, [({"A": v}, {"A": 1.0}) for v in values]).report(["A"])
    assert report["epoch"] == expected
    assert report["value"] == values[expected]
    assert report["fallback"] is False


def test_ties_go_to_the_lower_loss_then_to_the_earlier():
    epochs = [({"A": 1.0}, {"A": loss}) for loss in (0.6, 0.2, 0.2, 0.4)]
    assert choose("auc", epochs).best["epoch"] == 1


def test_ties_without_a_loss_go_to_the_earlier():
    assert choose("auc", [({"A": 1.0}, {}), ({"A": 1.0}, {})]).best["epoch"] == 0


def test_the_mean_over_datasets_decides():
    epochs = [({"A": 0.9, "B": 0.5}, {}), ({"A": 0.8, "B": 0.8}, {})]
    assert choose("auc", epochs).best == {"epoch": 1, "value": 0.8, "loss": None, "left_out": []}


def test_a_dataset_without_a_number_is_left_out_and_named():
    report = choose("auc", [({"A": 0.9, "B": None}, {})]).report(["A", "B"])
    assert report["value"] == 0.9
    assert "no value on B" in report["note"]


def test_an_epoch_that_lacks_a_dataset_does_not_beat_one_that_has_all():
    """Its mean is over fewer, perhaps easier, sets: a model whose scores overflow on one would win."""
    full, partial = {"A": 0.9, "B": 0.5}, {"A": 0.8, "B": None}
    assert choose("auc", [(full, {}), (partial, {})]).best["epoch"] == 0
    assert choose("auc", [(partial, {}), (full, {})]).best["epoch"] == 1
    assert choose("auc", [(partial, {}), ({"A": 0.85, "B": None}, {})]).best["epoch"] == 1


def test_an_epoch_that_lacks_a_dataset_is_no_improvement_either():
    selector = Selector("val", "auc")
    seen = []
    for values in ({"A": 0.6, "B": None}, {"A": 0.9, "B": 0.5}, {"A": 0.95, "B": None}, {"A": 0.9, "B": 0.6}):
        selector.consider(0, values, {})
        seen.append(selector.comparable_value(values))
    assert seen == [0.6, 0.7, None, 0.75]


def test_no_number_anywhere_falls_back_to_the_last_epoch_and_says_so():
    selector = choose("auc", [({"A": None}, {})] * 3)
    assert selector.needs_fallback
    report = selector.report(["A"])
    assert (report["epoch"], report["fallback"]) == (2, True)
    assert "could not be computed" in report["note"]


def test_last_takes_every_epoch():
    selector = Selector("last", "auc")
    assert [selector.consider(epoch, {}, {}) for epoch in range(3)] == [True] * 3
    assert selector.report([])["epoch"] == 2
    assert not selector.needs_fallback


def test_state_goes_on():
    one = choose("auc", [({"A": 0.9}, {"A": 0.1})])
    two = Selector("val", "auc")
    two.load_state_dict(one.state_dict())
    assert not two.consider(1, {"A": 0.8}, {"A": 0.1})
    assert two.best["epoch"] == 0


def test_unknown_metric():
    with pytest.raises(UserError, match="metric_scoring"):
        Selector("val", "auroc")


def test_mean_of_nothing_is_none():
    assert mean_of_known({"A": None}) is None


@pytest.mark.parametrize(
    ("values", "stops_after"),
    [([0.5, 0.6, 0.6, 0.6], 4), ([0.5, 0.4, 0.3], 3), ([None, None], 2), ([0.5, 0.6, 0.7, 0.8], None)],
)
def test_early_stopping_counts_epochs_without_improvement(values, stops_after):
    stopping = EarlyStopping(2)
    stopped = None
    for number, value in enumerate(values, start=1):
        stopping.update(value)
        if stopping.should_stop and stopped is None:
            stopped = number
    assert stopped == stops_after


def test_early_stopping_direction_delta_and_no_patience():
    lower = EarlyStopping(1, higher_is_better=False)
    lower.update(0.5)
    lower.update(0.4)
    assert not lower.should_stop
    strict = EarlyStopping(1, min_delta=0.1)
    strict.update(0.5)
    strict.update(0.55)
    assert strict.should_stop
    endless = EarlyStopping(None)
    for _ in range(50):
        endless.update(0.1)
    assert not endless.should_stop


def test_early_stopping_state_goes_on():
    one, two = EarlyStopping(2), EarlyStopping(2)
    one.update(0.5)
    one.update(0.4)
    two.load_state_dict(one.state_dict())
    two.update(0.4)
    assert two.should_stop
