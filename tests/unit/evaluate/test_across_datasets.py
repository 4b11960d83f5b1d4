"""Pairs of datasets and the worst group: what good AUCs of each do not show."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from effort_finetune.evaluate.across_datasets import across_datasets
from effort_finetune.evaluate.group_rows import group_rows
from effort_finetune.evaluate.video import VideoScores


def test_scores_at_two_levels_fail_across_datasets():
    label = np.array([0, 0, 1, 1])
    low, high = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.6, 0.7, 0.8, 0.9])
    found = across_datasets({"A": (label, low), "B": (label, high)}, {"A": {}, "B": {}})
    assert found["worst_group"] is None
    assert [(p["reals_of"], p["fakes_of"], p["auc"]) for p in found["cross_auc"]["pairs"]] == [
        ("A", "B", 1.0),
        ("B", "A", 0.0),
    ]
    assert (found["cross_auc"]["mean"], found["cross_auc"]["worst"]) == (0.5, 0.0)


def test_a_pair_equals_scikit_learn_and_the_worst_group_is_named():
    rng = np.random.default_rng(0)
    videos = {name: (rng.integers(0, 2, 60), np.round(rng.random(60), 1)) for name in "AB"}
    rows = {"A": {"x": {"auc": 0.8}, "real": {"auc": None}}, "B": {"y": {"auc": 0.6}}}
    found = across_datasets(videos, rows)
    (la, pa), (lb, pb) = videos["A"], videos["B"]
    both = np.r_[np.zeros(np.sum(la == 0)), np.ones(np.sum(lb == 1))]
    expected = roc_auc_score(both, np.r_[pa[la == 0], pb[lb == 1]])
    assert abs(found["cross_auc"]["pairs"][0]["auc"] - expected) < 1e-12
    assert found["worst_group"] == {"dataset": "B", "group": "y", "auc": 0.6}
    assert across_datasets({"A": videos["A"]}, {})["cross_auc"] is None


def test_a_groups_name_is_one_line_that_can_be_seen():
    label, prob, each = np.array([0, 1, 1]), np.array([0.2, 0.6, 0.4]), np.ones(3, np.int64)
    videos = VideoScores(("a", "b", "c"), label, prob, each, np.arange(3))
    rows = group_rows({"a": "real", "b": "fake/\x1b[31m\n", "c": "fake/y"}, videos, threshold=0.5)
    assert all(name.isprintable() for name in rows)
    assert [row["auc"] for row in rows.values()] == [None, 1.0, 1.0]
