"""Every metric against scikit-learn or a reference written from its definition, and every reason for null."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from effort_finetune.core.metrics import METRICS, TABLE, binary_metrics, roc_points


@st.composite
def samples(draw, min_size=1, max_size=40):
    n = draw(st.integers(min_size, max_size))
    label = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    # A coarse grid makes ties, and probabilities equal to the threshold, common.
    prob = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 20))) / 20
    return label, prob


@given(samples())
def test_a_metric_is_a_finite_number_or_null_with_a_reason(data):
    block = binary_metrics(*data)
    json.dumps(block, allow_nan=False)
    for name in METRICS:
        if block[name] is None:
            assert block["null_reasons"][name]
        else:
            assert 0.0 <= block[name] <= (TABLE[name].upper or np.inf)
            assert name not in block["null_reasons"]


@given(samples(min_size=2), st.sampled_from([0.25, 0.5, 0.75]))
def test_scikit_learn_agrees(data, threshold):
    label, prob = data
    assume(0 < label.sum() < len(label))
    called = (prob > threshold).astype(int)
    block = binary_metrics(label, prob, threshold=threshold)
    assert block["auc"] == pytest.approx(sk.roc_auc_score(label, prob), abs=1e-15)
    assert block["ap"] == pytest.approx(sk.average_precision_score(label, prob), abs=1e-15)
    assert block["acc"] == pytest.approx(sk.accuracy_score(label, called))
    assert block["balanced_acc"] == pytest.approx(sk.balanced_accuracy_score(label, called))
    assert block["recall"] == block["acc_fake"] == pytest.approx(sk.recall_score(label, called))
    assert block["acc_real"] == pytest.approx(sk.recall_score(label, called, pos_label=0))
    assert block["f1"] == pytest.approx(sk.f1_score(label, called))
    assert block["brier"] == pytest.approx(sk.brier_score_loss(label, prob))
    assert block["nll"] == pytest.approx(sk.log_loss(label, prob, labels=[0, 1]))
    if called.any():
        assert block["precision"] == pytest.approx(sk.precision_score(label, called))
    else:
        assert block["precision"] is None


@given(samples(min_size=2))
def test_auc_is_the_share_of_ordered_pairs(data):
    label, prob = data
    assume(0 < label.sum() < len(label))
    fake, real = prob[label == 1][:, None], prob[label == 0][None, :]
    pairs = np.mean((fake > real) + 0.5 * (fake == real))
    assert binary_metrics(label, prob)["auc"] == pytest.approx(pairs)


@given(samples(min_size=2))
def test_eer_is_where_the_roc_crosses_the_diagonal(data):
    label, prob = data
    assume(0 < label.sum() < len(label))
    fpr, tpr, _ = sk.roc_curve(label, prob, drop_intermediate=False)
    eer = binary_metrics(label, prob)["eer"]
    # The point (eer, 1 - eer) has to lie on a segment of the ROC.
    on_segment = [
        min(x0, x1) - 1e-12 <= eer <= max(x0, x1) + 1e-12
        and abs((y1 - y0) * (eer - x0) - (x1 - x0) * (1 - eer - y0)) < 1e-9
        and min(y0, y1) - 1e-12 <= 1 - eer <= max(y0, y1) + 1e-12
        for x0, x1, y0, y1 in zip(fpr, fpr[1:], tpr, tpr[1:], strict=False)
    ]
    assert any(on_segment)


def test_eer_of_known_curves():
    assert binary_metrics([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])["eer"] == 0.0
    assert binary_metrics([0, 0, 1, 1], [0.8, 0.9, 0.1, 0.2])["eer"] == 1.0
    assert binary_metrics([0, 1], [0.5, 0.5])["eer"] == 0.5
    # ROC (0,0) (0,1/2) (1/2,1/2) (1/2,1) (1,1): it crosses the diagonal on the flat piece at FPR 1/2.
    assert binary_metrics([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6])["eer"] == 0.5


def test_tpr_at_fpr_takes_the_highest_point_at_the_target_and_interpolates_between():
    # 100 reals at distinct scores; 60 fakes above all of them, 40 below the fifth one only.
    label = np.r_[np.zeros(100), np.ones(100)].astype(int)
    prob = np.r_[np.linspace(0.1, 0.8, 100), np.full(60, 0.9), np.full(40, 0.77)]
    block = binary_metrics(label, prob)
    assert block["tpr_at_fpr_1pct"] == pytest.approx(0.6)
    assert block["tpr_at_fpr_5pct"] == pytest.approx(1.0)


def test_tpr_at_fpr_is_null_where_the_reals_cannot_resolve_it():
    label = np.r_[np.zeros(20), np.ones(5)].astype(int)
    block = binary_metrics(label, np.linspace(0, 1, 25))
    assert block["tpr_at_fpr_1pct"] is None
    assert block["null_reasons"]["tpr_at_fpr_1pct"] == (
        "20 real samples cannot resolve FPR 0.01 (at least 100 needed)"
    )
    assert block["tpr_at_fpr_5pct"] is not None


@given(samples())
def test_ece_against_its_definition(data):
    label, prob = data
    expected = 0.0
    for b in range(15):
        inside = (prob > b / 15) & (prob <= (b + 1) / 15) if b else prob <= 1 / 15
        if inside.any():
            expected += inside.mean() * abs(label[inside].mean() - prob[inside].mean())
    assert binary_metrics(label, prob)["ece"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("label", "prob", "null", "reason"),
    [
        ([], [], set(METRICS), "no sample was scored"),
        ([0, 1], [float("nan"), 0.5], set(METRICS), "1 of 2 probabilities are not finite"),
        ([0, 1], [float("inf"), 0.5], set(METRICS), "1 of 2 probabilities are not finite"),
        (
            [0, 0],
            [0.1, 0.2],
            {"auc", "ap", "eer", "eer_attained", "acc_fake", "balanced_acc"}
            | {"precision", "recall", "f1", "ece_fake"},
            "no fake samples",
        ),
        (
            [1, 1],
            [0.6, 0.7],
            {"auc", "ap", "eer", "eer_attained", "acc_real", "balanced_acc", "ece_real"},
            "no real samples",
        ),
    ],
)
def test_what_cannot_be_computed_is_null(label, prob, null, reason):
    block = binary_metrics(label, prob)
    json.dumps(block, allow_nan=False)
    resolvable = {m for m in METRICS if TABLE[m].fpr is None}
    found = {m for m in resolvable if block[m] is None}
    assert null & resolvable <= found
    lacking = {"fake"} if 1 not in label else {"real"}
    # A metric that came to the table since says itself what it needs.
    assert all(lacking & set(TABLE[m].needs) for m in found - null)
    assert reason in block["null_reasons"].values()


def test_a_score_at_the_threshold_is_called_real_as_the_host_does():
    assert binary_metrics([0, 1], [0.5, 0.6])["confusion"] == {"tn": 1, "fp": 0, "fn": 0, "tp": 1}
    assert binary_metrics([0, 1], [0.5, 0.6], threshold=0.4)["confusion"]["fp"] == 1


@pytest.mark.parametrize(("label", "prob"), [([0, 2], [0.1, 0.2]), ([0], [0.1, 0.2]), ([[0]], [[0.1]])])
def test_wrong_arrays_are_refused(label, prob):
    with pytest.raises(ValueError, match="label"):
        binary_metrics(label, prob)


def test_roc_points_need_both_classes():
    assert roc_points([1, 1], [0.2, 0.3]) is None
    fpr, tpr = roc_points([0, 1], [0.2, 0.3])
    assert fpr[0] == tpr[0] == 0.0
    assert fpr[-1] == tpr[-1] == 1.0


@given(samples(min_size=30, max_size=80))
def test_partial_auc_is_scikit_learns(data):
    label, prob = data
    assume((label == 0).sum() >= 10 and label.any())
    assert binary_metrics(label, prob)["partial_auc"] == pytest.approx(
        sk.roc_auc_score(label, prob, max_fpr=0.1), abs=1e-12
    )


@given(samples())
def test_area_under_risk_coverage_against_its_definition(data):
    label, prob = data
    confidence = np.maximum(prob, 1 - prob)
    wrong = (prob > 0.5) != (label == 1)
    risks = [wrong[confidence >= one].mean() for one in confidence]
    assert binary_metrics(label, prob)["aurc"] == pytest.approx(np.mean(risks))


@given(samples())
def test_calibration_of_the_two_verdicts_makes_up_the_whole_at_a_bins_edge(data):
    label, prob = data
    block = binary_metrics(label, prob, threshold=7 / 15)
    called = np.mean(prob > 7 / 15)
    parts = [(block["ece_fake"] or 0) * called, (block["ece_real"] or 0) * (1 - called)]
    assert sum(parts) == pytest.approx(block["ece"], abs=1e-12)


def test_the_documented_table_is_the_tables():
    page = (Path(__file__).resolve().parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
    for name, metric in TABLE.items():
        how = metric.interval if metric.has_interval else f"none: {metric.interval}"
        best = "lower" if metric.lower_is_better else "higher"
        assert f"| `{name}` | {metric.title} | {metric.meaning} | {best} | {how} |" in page
    listed = [line for line in page.splitlines() if line.startswith("| `") and line.count(" | ") == 4]
    assert len(listed) == len(TABLE)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=40))
def test_the_attained_error_rate_is_the_best_that_a_threshold_does(samples):
    label, prob = np.array([y for y, _ in samples]), np.array([s / 8 for _, s in samples])
    if len(set(label.tolist())) < 2:
        assert binary_metrics(label, prob)["eer_attained"] is None
        return
    cuts = [*np.unique(prob), 2.0]
    rates = [max(np.mean(prob[label == 0] >= t), np.mean(prob[label == 1] < t)) for t in cuts]
    found = binary_metrics(label, prob)
    assert found["eer_attained"] == pytest.approx(min(rates))
    assert found["eer"] <= found["eer_attained"] + 1e-12
