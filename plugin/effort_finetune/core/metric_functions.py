"""What the metrics compute, each for many rows of weights at a time: ``WeightedScores`` to ``float64[B]``.

NaN means that the metric has no value under these weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from effort_finetune.core.weighted import FloatArray, IntArray, SortedScores, WeightedScores, blocks

Function = Callable[[WeightedScores], FloatArray]
ECE_BINS = 15
_SMALLEST = float(np.finfo(np.float64).eps)


def auc(w: WeightedScores) -> FloatArray:
    """Area under the ROC: the share of (real, fake) pairs in the right order, ties counting half."""
    above, at_or_above, _ = w.scores.at_fakes
    ahead = np.einsum("bi,bi->b", w.fake_weights, w.fp_at_fakes)
    if not np.array_equal(above, at_or_above):
        strictly = np.einsum("bi,bi->b", w.fake_weights, np.take(w.fp, above, axis=1))
        ahead = (ahead + strictly) / 2
    return (w.reals * w.fakes - ahead) / (w.reals * w.fakes)


def average_precision(w: WeightedScores) -> FloatArray:
    """Sum over the fakes of the precision at each one's score (scikit-learn's step function)."""
    end = w.scores.at_fakes[2]
    untied = np.array_equal(end, np.arange(1, len(end) + 1))
    positive = w.tp[:, 1:] if untied else np.take(w.tp, end, axis=1)
    # A leading threshold that no drawn sample passes has precision 0/0 and gains nothing.
    total = positive + w.fp_at_fakes
    np.maximum(total, 1, out=total)
    return np.einsum("bi,bi->b", w.fake_weights, positive / total) / w.fakes


def equal_error_rate(w: WeightedScores) -> FloatArray:
    """The rate at which FPR = 1 - TPR on the piecewise linear ROC, solved exactly."""
    # fpr + tpr - 1 grows along the ROC from -1 to 1.
    before = w.last(lambda fpr, tpr: fpr + tpr - 1.0 < 0.0)
    fpr, tpr = w.at(before)
    next_fpr, next_tpr = w.at(np.minimum(before + 1, len(w.scores.thresholds[0]) - 1))
    gap, next_gap = fpr + tpr - 1.0, next_fpr + next_tpr - 1.0
    return fpr + -gap / (next_gap - gap) * (next_fpr - fpr)


def attained_error_rate(w: WeightedScores) -> FloatArray:
    """The lowest max(FPR, 1 - TPR) that one threshold attains: EER to programs that do not interpolate."""
    before = w.last(lambda fpr, tpr: fpr + tpr - 1.0 < 0.0)
    following = np.minimum(before + 1, len(w.scores.thresholds[0]) - 1)
    return np.minimum(1.0 - w.at(before)[1], w.at(following)[0])


def tpr_at(target: float) -> Function:
    """Returns the metric TPR at an FPR of ``target``, linear between ROC points."""

    def tpr_at_fpr(w: WeightedScores) -> FloatArray:
        left = w.last(lambda fpr, _: fpr <= target)
        fpr, tpr = w.at(left)
        next_fpr, next_tpr = w.at(np.minimum(left + 1, len(w.scores.thresholds[0]) - 1))
        width = next_fpr - fpr
        share = np.divide(target - fpr, width, out=np.zeros_like(width), where=width > 0)
        return tpr + share * (next_tpr - tpr)

    return tpr_at_fpr


def partial_auc(limit: float) -> Function:
    """Returns the metric area under the ROC up to an FPR, standardised to .5 (chance) to 1 (McClish 1989)."""

    def area_up_to(w: WeightedScores) -> FloatArray:
        left = w.last(lambda fpr, _: fpr <= limit)
        within = w.scores.thresholds[0][left]  # reals at or above that threshold
        end = int(within.max(initial=0))
        above, at_or_above = (part[:end] for part in w.scores.at_reals)
        heights = np.take(w.tp, above, axis=1) + np.take(w.tp, at_or_above, axis=1)
        widths = np.where(np.arange(end) < within[:, None], np.diff(w.fp[:, : end + 1], axis=1), 0)
        area = np.einsum("bi,bi->b", widths, heights) / (2 * w.reals * w.fakes)
        fpr, tpr = w.at(left)
        area += (limit - fpr) * (tpr + tpr_at(limit)(w)) / 2
        lowest = limit**2 / 2
        return (1 + (area - lowest) / (limit - lowest)) / 2

    return area_up_to


def decision(formula: Callable[[IntArray, IntArray, IntArray, IntArray], FloatArray]) -> Function:
    """Returns a metric of the confusion matrix; ``formula`` takes ``tn, fp, fn, tp``."""
    return lambda w: formula(*w.confusion)


def brier(w: WeightedScores) -> FloatArray:
    """Mean squared difference of probability and label."""
    return w.mean(w.scores.once("brier", lambda s: s.by_cluster((s.prob - s.label) ** 2)))


def negative_log_likelihood(w: WeightedScores) -> FloatArray:
    """Mean of -log of the true class's probability, in nats; probabilities are kept 2e-16 off 0 and 1."""

    def surprise(s: SortedScores) -> FloatArray:
        p = np.clip(s.prob, _SMALLEST, 1 - _SMALLEST)
        return s.by_cluster(-np.where(s.label == 1, np.log(p), np.log1p(-p)))

    return w.mean(w.scores.once("nll", surprise))


def expected_calibration_error(w: WeightedScores) -> FloatArray:
    """Sum over 15 equal-width bins of P(fake) of n_b/N * |share of fakes - mean probability|.

    Bins are [0, 1/15], (1/15, 2/15], ... of the probability of fake itself, not of the larger class
    probability, so that an error on either side of 0.5 keeps its sign in its own bin.
    """
    return _calibration_gap(w, "all", lambda s: np.ones(len(s.prob), dtype=np.bool_))


def calibration_of_called(fake: bool) -> Function:
    """Returns the metric ECE of the samples called fake, or of those called real.

    What is said with each verdict is measured apart (top-label calibration, Gupta and Ramdas 2022): the two
    differ where a detector overstates one class and understates the other.
    """
    name = "fake" if fake else "real"
    return lambda w: _calibration_gap(w, name, lambda s: (s.prob > s.threshold) == fake)


def _calibration_gap(
    w: WeightedScores, name: str, choose: Callable[[SortedScores], NDArray[np.bool_]]
) -> FloatArray:
    def tables(s: SortedScores) -> tuple[FloatArray, FloatArray]:
        chosen = choose(s)
        index = np.searchsorted(np.linspace(0.0, 1.0, ECE_BINS + 1)[1:-1], s.prob[chosen], side="left")
        cell = s.cluster[chosen] * ECE_BINS + index
        gap = np.bincount(cell, weights=(s.label - s.prob)[chosen], minlength=s.clusters * ECE_BINS)
        size = np.bincount(s.cluster[chosen], minlength=s.clusters).astype(np.float64)
        return gap.astype(np.float64).reshape(s.clusters, ECE_BINS), size

    gap, size = w.scores.once(f"calibration of {name}", tables)
    return np.abs(w.counts @ gap).sum(axis=1) / (w.counts @ size)


def area_under_risk_coverage(w: WeightedScores) -> FloatArray:
    """Mean, over the samples, of the error rate among those at least as confident (Geifman, El-Yaniv 2017).

    The confidence is the larger class probability, the verdict is the class it belongs to.
    """

    def order(s: SortedScores) -> tuple[IntArray, IntArray, IntArray | None]:
        doubt = -np.maximum(s.prob, 1 - s.prob)
        by_doubt = np.argsort(doubt, kind="stable")
        doubt = doubt[by_doubt]
        wrong = ((s.prob > 0.5) != (s.label == 1))[by_doubt]
        ends = np.searchsorted(doubt, doubt, side="right") - 1  # samples of one confidence come together
        tied = not np.array_equal(ends, np.arange(len(ends)))
        return s.cluster[by_doubt], np.where(wrong, (1 << 32) + 1, 1), ends if tied else None

    # Errors are summed in the upper half of the numbers whose lower half sums all: one pass in place of two.
    clusters, unit, ends = w.scores.once("risk coverage", order)
    area = np.empty(len(w.whole))
    for rows, weight in blocks(w.whole, clusters):
        both = weight * unit
        np.cumsum(both, axis=1, out=both)
        if ends is not None:
            both = np.take(both, ends, axis=1)
        total = both & 0xFFFFFFFF
        np.maximum(total, 1, out=total)
        both >>= 32
        area[rows] = np.einsum("bi,bi->b", weight, both / total)
    return area / w.total
