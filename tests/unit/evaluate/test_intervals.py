"""The bootstrap: each resample's metrics equal scikit-learn's on the samples repeated as drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.coverage import draw, truth
from effort_finetune.core.metrics import TABLE, binary_metrics, sorted_scores
from effort_finetune.evaluate.intervals import (
    BOUNDED,
    bca,
    clopper_pearson,
    confidence_intervals,
    resampled_metrics,
)
from effort_finetune.evaluate.resampling import influence_sums, jackknife_bias, leave_out, resample_videos


@st.composite
def clustered(draw):
    """Frames of videos: (label, prob, video, video_label), both classes present."""
    video_label = np.array(draw(st.lists(st.integers(0, 1), min_size=2, max_size=12)))
    assume(0 < video_label.sum() < len(video_label))
    frames = draw(st.lists(st.integers(1, 4), min_size=len(video_label), max_size=len(video_label)))
    video = np.repeat(np.arange(len(video_label)), frames)
    grid = draw(st.lists(st.integers(0, 12), min_size=len(video), max_size=len(video)))
    return video_label[video], np.array(grid) / 12, video, video_label


@given(clustered(), st.integers(0, 2**31), st.sampled_from([0.25, 0.5, 0.99]))
@settings(max_examples=30)
def test_resampled_metrics_equal_the_metrics_of_the_repeated_samples(data, seed, threshold):
    label, prob, video, video_label = data
    counts = resample_videos(video_label, samples=3, seed=seed)
    fast = resampled_metrics(sorted_scores(label, prob, video, threshold=threshold), BOUNDED, counts)
    for row, weights in enumerate(counts):
        repeat = weights[video]
        slow = binary_metrics(np.repeat(label, repeat), np.repeat(prob, repeat), threshold=threshold)
        for name in BOUNDED:
            if slow[name] is not None:
                assert fast[name][row] == pytest.approx(slow[name], abs=1e-12), name
            elif TABLE[name].fpr is None:  # resolution is judged once, on the point value
                assert np.isnan(fast[name][row]), name


@pytest.mark.parametrize("reals", [100, 173])
def test_resampled_tpr_at_fpr(reals):
    rng = np.random.default_rng(1)
    label = np.r_[np.zeros(reals, int), np.ones(60, int)]
    prob = np.round(rng.random(len(label)) * 0.7 + 0.3 * label, 2)
    counts = resample_videos(label, samples=40, seed=2)
    fast = resampled_metrics(sorted_scores(label, prob), BOUNDED, counts)
    for row, weights in enumerate(counts):
        slow = binary_metrics(np.repeat(label, weights), np.repeat(prob, weights))
        for name in ("tpr_at_fpr_1pct", "tpr_at_fpr_5pct"):
            assert fast[name][row] == pytest.approx(slow[name], abs=1e-12)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=30), st.integers(0, 1000))
def test_resamples_keep_the_class_counts_and_are_reproducible(labels, seed):
    video_label = np.array(labels)
    counts = resample_videos(video_label, samples=7, seed=seed)
    for value in (0, 1):
        assert (counts[:, video_label == value].sum(axis=1) == (video_label == value).sum()).all()
    assert np.array_equal(counts, resample_videos(video_label, samples=7, seed=seed))


def test_more_resamples_extend_the_ones_before():
    video_label = np.array([0, 1] * 10)
    assert np.array_equal(
        resample_videos(video_label, samples=9, seed=3)[:4], resample_videos(video_label, samples=4, seed=3)
    )


def intervals_of(label, prob, *, samples=200, seed=0):
    label, prob = np.asarray(label), np.asarray(prob, dtype=float)
    video = np.arange(len(label))
    counts = resample_videos(label, samples=samples, seed=seed)
    block = binary_metrics(label, prob)
    return block, confidence_intervals(block, label, prob, video, counts, threshold=0.5)


def test_an_interval_holds_the_point_value_and_narrows_with_more_videos():
    rng = np.random.default_rng(0)
    widths = []
    for n in (40, 640):
        label = np.arange(n) % 2
        block, result = intervals_of(label, np.clip(rng.normal(0.4 + 0.2 * label, 0.2), 0, 1))
        low, high = result["intervals"]["auc"]
        assert low <= block["auc"] <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_perfect_scores_of_a_few_videos_are_no_certainty():
    block, result = intervals_of([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert block["auc"] == 1.0
    assert result["intervals"]["auc"] is None
    assert result["null_reasons"]["auc"] == "the value is 1: resamples do not differ, which bounds nothing"
    # Two of two right is compatible with a rate of 16 % (Clopper and Pearson).
    assert result["intervals"]["acc_fake"] == pytest.approx([0.025**0.5, 1.0])
    assert result["methods"]["acc_fake"] == "exact"
    assert result["intervals"]["brier"] is not None


@pytest.mark.parametrize(
    ("label", "samples", "reason"),
    [
        ([0, 1, 1], 10, "1 real video cannot be resampled (at least 2 needed)"),
        ([0, 0, 1], 10, "1 fake video cannot be resampled (at least 2 needed)"),
        ([0, 0, 1, 1], 0, "bootstrap_samples is 0"),
        ([0, 0, 0], 10, "no fake samples"),
    ],
)
def test_no_interval_without_a_reason(label, samples, reason):
    _, result = intervals_of(label, np.linspace(0, 1, len(label)), samples=samples)
    assert result["intervals"]["auc"] is None
    assert result["null_reasons"]["auc"] == reason


def test_frames_of_one_video_are_drawn_together():
    # Ten identical frames a video carry the information of one: the interval must not shrink.
    rng = np.random.default_rng(3)
    video_label = np.arange(30) % 2
    video_prob = np.clip(rng.normal(0.4 + 0.2 * video_label, 0.25), 0, 1)
    counts = resample_videos(video_label, samples=100, seed=0)
    results = []
    for frames in (1, 10):
        video = np.repeat(np.arange(30), frames)
        label, prob = video_label[video], video_prob[video]
        block = binary_metrics(label, prob)
        results.append(confidence_intervals(block, label, prob, video, counts, threshold=0.5))
    single, tenfold = (np.diff(result["intervals"]["auc"])[0] for result in results)
    assert single <= tenfold < 1.15 * single  # Student's t instead of the normal quantile
    assert results[0]["intervals"]["brier"] == pytest.approx(results[1]["intervals"]["brier"])


def test_few_errors_are_bounded_as_the_binomial_says():
    # 40 fakes, 3 of them missed: SciPy's own exact interval.
    label = np.r_[np.zeros(40, int), np.ones(40, int)]
    prob = np.r_[np.linspace(0, 0.3, 40), np.linspace(0.4, 0.49, 3), np.linspace(0.6, 1, 37)]
    _, result = intervals_of(label, prob, samples=2000)
    exact = stats.binomtest(37, 40).proportion_ci(method="exact")
    assert clopper_pearson(37 / 40, 40) == pytest.approx((exact.low, exact.high))
    assert result["methods"]["acc_fake"] == "exact"
    assert result["intervals"]["acc_fake"] == pytest.approx([exact.low, exact.high], abs=0.01)


def test_few_videos_of_many_frames_have_less_to_say_than_their_variance_claims():
    # Korn and Graubard: the square of Student's quantiles at 39 and at 9 degrees of freedom, once more the
    # tenth that a variance of ten videos lacks.
    video_label = np.repeat([0, 1], 10)
    video = np.repeat(np.arange(20), 4)
    label, prob = video_label[video], np.full(80, 0.9)
    prob[:40] = 0.1
    prob[[0, 1, 2, 5, 9]] = 0.8  # five reals called fake, in three videos
    counts = resample_videos(video_label, samples=4000, seed=1)
    block = binary_metrics(label, prob)
    found = confidence_intervals(block, label, prob, video, counts, threshold=0.5)["intervals"]["acc_real"]
    per_video = np.array([1, 3, 3] + [4] * 7) / 4
    variance = per_video.var(ddof=1) / 10
    size = (40 / 39) * 0.875 * 0.125 / variance * (stats.t.ppf(0.975, 39) / stats.t.ppf(0.975, 9)) ** 2
    assert found == pytest.approx(clopper_pearson(0.875, size), abs=0.006)


def test_a_loss_has_its_interval_on_the_log_scale():
    rng = np.random.default_rng(2)
    label = np.arange(60) % 2
    prob = np.clip(rng.normal(0.4 + 0.2 * label, 0.2), 0.01, 0.99)
    block, result = intervals_of(label, prob, samples=2)
    low, high = result["intervals"]["nll"]
    assert result["methods"]["nll"] == "logit"
    assert low * high == pytest.approx(block["nll"] ** 2)  # symmetric about the logarithm
    each = -np.log(np.where(label == 1, prob, 1 - prob))
    error = np.sqrt(sum(each[label == c].var(ddof=1) * 30 for c in (0, 1))) / 60
    degrees = 2 * (np.log(high / low) / 2 * block["nll"] / error)
    assert stats.t.ppf(0.975, 58) * 0.999 < degrees / 2 < stats.t.ppf(0.975, 10)


@given(st.integers(0, 2**31))
@settings(max_examples=10)
def test_bca_of_a_mean_equals_scipys(seed):
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=25)
    drawn = rng.choice(values, size=(1500, 25)).mean(axis=1)
    rows, about = leave_out(np.ones(25, int))
    parts = influence_sums(rows @ values / 24, about)
    (expected,) = [
        stats.bootstrap((values,), np.mean, n_resamples=0, bootstrap_result=_Drawn(drawn), method="BCa")
    ]
    interval = expected.confidence_interval
    assert bca(drawn, values.mean(), parts) == pytest.approx((interval.low, interval.high), rel=2e-3)


class _Drawn:
    """Resamples made elsewhere, in the form that scipy.stats.bootstrap goes on from."""

    def __init__(self, drawn):
        self.bootstrap_distribution = drawn


@pytest.mark.parametrize("videos", [150, 450])
def test_leaving_out_groups_keeps_the_acceleration(videos):
    rng = np.random.default_rng(4)
    values = rng.exponential(size=videos)
    rows, about = leave_out(np.ones(videos, int))
    assert len(rows) == (videos if videos <= 200 else 128)
    parts = influence_sums(rows @ values / rows.sum(axis=1), about)
    single = (values - values.mean()) / videos
    assert np.sum(parts**2) == pytest.approx(np.sum(single**2), rel=0.35 if videos > 200 else 0.02)


def test_the_order_of_many_videos_does_not_enter_their_variance():
    # Six hundred videos, sorted by two forgeries that differ: neighbours left out together count too much.
    values = np.repeat([0.0, 1.0], 300) + np.random.default_rng(0).normal(0, 0.3, 600)
    rows, about = leave_out(np.ones(600, int))
    parts = influence_sums(rows @ values / rows.sum(axis=1), about)
    assert np.sum(parts**2) == pytest.approx(values.var() / 600, rel=0.35)


def test_what_hangs_on_fewer_than_five_reals_has_no_interval():
    rng = np.random.default_rng(4)
    for reals, bounded in ((99, False), (100, True)):
        label = np.r_[np.zeros(reals, int), np.ones(60, int)]
        block, result = intervals_of(label, np.clip(rng.normal(0.4 + 0.3 * label, 0.2), 0, 1))
        assert block["tpr_at_fpr_5pct"] is not None
        assert (result["intervals"]["tpr_at_fpr_5pct"] is not None) == bounded
        assert ("tpr_at_fpr_5pct" in result["null_reasons"]) != bounded


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=40))
def test_the_jackknife_takes_away_what_a_plain_variance_lacks(values):
    # Quenouille: the variance over n, so corrected, is the one over n - 1, exactly.
    x = np.array(values, dtype=float)
    rows, about = leave_out(np.ones(len(x), int))
    left_out = np.array([np.var(x[row == 1]) for row in rows])
    assert np.var(x) - jackknife_bias(left_out, np.var(x), about) == pytest.approx(
        np.var(x, ddof=1), abs=1e-9
    )


def test_the_intervals_of_few_videos_hold_what_is_true_of_many():
    # 10 real and 50 fake videos of four frames: a percentile bootstrap holds the AP in 84 of 100 sets.
    true, held, sets = truth(10, 50, 0.9), {"auc": 0, "ap": 0}, 40
    rng = np.random.default_rng(5)
    for _ in range(sets):
        label, prob, video, video_label = draw(rng, 10, 50, 0.9, 4)
        counts = resample_videos(video_label, samples=2, seed=0)
        block = binary_metrics(label, prob)
        found = confidence_intervals(block, label, prob, video, counts, threshold=0.5)["intervals"]
        for name in held:
            held[name] += found[name] is not None and found[name][0] <= true[name] <= found[name][1]
    assert min(held.values()) >= 0.87 * sets, held
