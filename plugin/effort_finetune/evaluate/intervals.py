"""95 % confidence intervals over videos, of the kind that each metric needs to keep its promise.

Frames of one video are not independent, so a video counts as a whole, for frame metrics too, and real and
fake videos are drawn apart, so that every resample keeps the class counts. The AUC goes by its placement
values, average precision, AURC, partial AUC and Brier score by their jackknife, all on the logit scale, NLL
on the log scale; shares of right verdicts by Clopper and Pearson's exact interval at their effective sample
size (Korn and Graubard 1998), which few errors do not shorten; a TPR at an FPR by the bias-corrected and
accelerated bootstrap (BCa, Efron 1987).
``benchmarks/coverage.py`` measures how often each holds the true value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from effort_finetune.core.metrics import TABLE, Metric, sorted_scores
from effort_finetune.core.weighted import FloatArray, IntArray, SortedScores
from effort_finetune.evaluate.delong import logit_interval, placed
from effort_finetune.evaluate.resampling import influence_sums, jackknife_bias, leave_out

LEVEL = 0.95
#: Metrics that get an interval.
BOUNDED = tuple(name for name, metric in TABLE.items() if metric.has_interval)
#: A value read where fewer reals than this are called fake hangs on the one at the edge.
_FEWEST_ERRORS = 5
#: Summed over ranks: too high or low by having few videos, which the jackknife corrects. Where videos hold
#: one sample their parts' excess kurtosis is not counted, which would make intervals of few videos far too
#: wide; elsewhere it is: frames of one video go wrong together, so that few videos hold most of the variance.
_OF_RANKS = ("ap", "aurc")
#: An error rate that videos without an error leave open, and that is worth a word.
MOST_ROOM = 0.1
_NO_WIDTH = 1e-12  # sums in another order differ by less

Bounds = tuple[float, float]


class Undefined(Exception):
    """A metric has no interval on these samples; the message is the reason that goes with ``null``."""


def confidence_intervals(
    point: Mapping[str, Any],
    label: IntArray,
    prob: FloatArray,
    video: IntArray,
    counts: NDArray[np.uint16],
    *,
    threshold: float,
) -> dict[str, Any]:
    """Returns the intervals of one block of metrics.

    Args:
        point: The block of :func:`~effort_finetune.core.metrics.binary_metrics`: a metric without a
            value gets no interval, for the same reason.
        label: ``[N]``, 0 real, 1 fake.
        prob: ``[N]``, probability of fake.
        video: ``[N]``, the video of each sample, a column of ``counts``.
        counts: ``[B, V]`` of :func:`~effort_finetune.evaluate.resampling.resample_videos`.
        threshold: The decision threshold of the point values.

    Returns:
        ``intervals`` (metric to ``[low, high]`` or ``None``), ``methods`` (metric to ``delong``, ``logit``,
        ``exact`` or ``bca``) and ``null_reasons``.
    """
    intervals: dict[str, list[float] | None] = dict.fromkeys(BOUNDED)
    reasons = {name: point["null_reasons"][name] for name in BOUNDED if point[name] is None}
    methods: dict[str, str] = {}
    wanted = [name for name in BOUNDED if name not in reasons]
    if wanted and (blocker := _blocker(label, video, counts)) is not None:
        reasons.update(dict.fromkeys(wanted, blocker))
        wanted = []
    if wanted:
        scores = sorted_scores(label, prob, video, threshold=threshold)
        video_label = video_labels(label, video)
        few = {name: why for name in wanted if (why := _few_above(TABLE[name], video_label)) is not None}
        reasons.update(few)
        wanted = [name for name in wanted if name not in few]
        kinds = {name: TABLE[name].interval for name in wanted}
        drawn = resampled_metrics(scores, [n for n in wanted if kinds[n] in ("exact", "bca")], counts)
        rows, about = leave_out(video_label)
        left_out = resampled_metrics(scores, [n for n in wanted if kinds[n] in ("logit", "bca")], rows)
        clustered = len(label) > len(video_label)
        for name in wanted:
            kind, value = kinds[name], point[name]
            try:
                if kind == "delong":
                    parts = placed(label, prob, video, video_label).parts
                    bounds = _logit(value, parts, video_label, excess=1.0 if clustered else None)
                elif kind == "logit":
                    bounds = _jackknife(name, value, left_out[name], about, clustered=clustered)
                elif kind == "exact":
                    size = _effective_size(TABLE[name], value, drawn[name], label, video_label)
                    bounds = clopper_pearson(value, size)
                else:
                    bounds = _bootstrap(drawn[name], value, influence_sums(left_out[name], about))
            except Undefined as reason:
                reasons[name] = str(reason)
            else:
                intervals[name], methods[name] = list(bounds), kind
    return {"intervals": intervals, "methods": methods, "null_reasons": reasons}


def resampled_metrics(
    scores: SortedScores, names: list[str] | tuple[str, ...], counts: NDArray[np.uint16]
) -> dict[str, FloatArray]:
    """Computes metrics of every resample.

    Returns:
        Metric name to ``float64[B]``; NaN marks a resample in which the metric is undefined.
    """
    return scores.apply({name: TABLE[name].function for name in names}, counts)


def bca(drawn: FloatArray, value: float, parts: FloatArray, level: float = LEVEL) -> Bounds:
    """Returns the bias-corrected and accelerated interval (Efron 1987).

    Args:
        drawn: ``[B]``, the statistic of every resample.
        value: The statistic of the sample.
        parts: ``[G]``, what each left-out video contributes, :func:`influence_sums`.
        level: Its nominal coverage.
    """
    below = np.sum(drawn < value - _NO_WIDTH) + np.sum(np.abs(drawn - value) <= _NO_WIDTH) / 2
    # A value outside of all resamples still leaves half a resample on its other side.
    share = np.clip(below / len(drawn), 0.5 / len(drawn), 1 - 0.5 / len(drawn))
    bias = special.ndtri(share)
    square = float(parts @ parts)
    acceleration = float(np.sum(parts**3)) / (6 * square**1.5) if square > 0 else 0.0
    shifted = bias + special.ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(drawn, special.ndtr(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def clopper_pearson(share: float, size: float, level: float = LEVEL) -> Bounds:
    """Returns the exact interval of a share of ``size`` independent samples, which need not be whole."""
    hits, tail = share * size, (1 - level) / 2
    low = 0.0 if hits <= 0 else float(special.betaincinv(hits, size - hits + 1, tail))
    high = 1.0 if hits >= size else float(special.betaincinv(hits + 1, size - hits, 1 - tail))
    return low, high


def room_for_errors(reals: int, fakes: int) -> str | None:
    """Says what so few videos without an error leave open, ``None`` where it is little.

    A perfect value has no interval, yet ten videos without an error are what a detector with an error rate of
    31 % can still give (the upper end of Clopper and Pearson's interval for none of ten).
    """
    fewest = min(reals, fakes)
    rate = clopper_pearson(0.0, fewest)[1]
    if rate <= MOST_ROOM:
        return None
    return f"{fewest} without an error leave room for an error rate of {rate:.0%}".replace("%", " %")


def auc_interval(value: float | None, label: IntArray, prob: FloatArray) -> list[float] | None:
    """Returns the interval of an AUC over videos of one score each, ``None`` where there is none.

    Args:
        value: The AUC.
        label: ``[V]``, 0 real, 1 fake.
        prob: ``[V]``, probability of fake.
    """
    if value is None or not 0 < value < 1 or min(np.sum(label == 0), np.sum(label == 1)) < 2:
        return None
    parts = placed(label, prob, np.arange(len(label)), label).parts
    return list(logit_interval(value, parts, label, LEVEL, excess=None))


def video_labels(label: IntArray, video: IntArray) -> IntArray:
    """Returns the label of each video, ``[V]``."""
    labels = np.zeros(int(video.max(initial=-1)) + 1, dtype=np.int64)
    labels[video] = label
    return labels


def _logit(
    value: float, parts: FloatArray, group: FloatArray | IntArray, *, excess: float | None, bias: float = 0.0
) -> Bounds:
    if not _NO_WIDTH < value < 1 - _NO_WIDTH:
        raise Undefined(f"the value is {round(value)}: resamples do not differ, which bounds nothing")
    # No correction goes further than half the way to 0 or 1.
    centre = float(np.clip(value - bias, value / 2, (1 + value) / 2))
    low, high = logit_interval(centre, parts, group, LEVEL, excess=excess)
    return min(low, value), max(high, value)


def _jackknife(
    name: str, value: float, left_out: FloatArray, about: FloatArray, *, clustered: bool
) -> Bounds:
    parts, group = influence_sums(left_out, about), about[:, 0]
    if name in _OF_RANKS:
        bias = jackknife_bias(left_out, value, about)
        return _logit(value, parts, group, excess=float(clustered), bias=bias)
    if TABLE[name].upper is not None:
        return _logit(value, parts, group, excess=1.0)
    # The logit of x / (1 + x) is the logarithm of x.
    low, high = _logit(value / (1 + value), parts / (1 + value) ** 2, group, excess=1.0)
    return low / (1 - low), high / (1 - high)


def _bootstrap(drawn: FloatArray, value: float, parts: FloatArray) -> Bounds:
    if undefined := int(np.sum(~np.isfinite(drawn))):
        raise Undefined(f"undefined in {undefined} of {len(drawn)} resamples")
    low, high = bca(drawn, value, parts)
    # What stays the same in every resample, be it of four videos: that is no certainty.
    if high - low < _NO_WIDTH:
        raise Undefined(f"{len(drawn)} resamples do not differ, which bounds nothing")
    return min(low, value), max(high, value)


def _effective_size(
    metric: Metric, value: float, drawn: FloatArray, label: IntArray, video_label: IntArray
) -> float:
    """Independent samples that would vary as the resamples do; without any variation, the videos.

    Of few videos the variance itself is known badly: Korn and Graubard (1998) multiply by the square of the
    quotient of Student's quantiles at the degrees of freedom of samples and of videos.
    """
    only = [("real", "fake").index(name) for name in metric.needs] or [0, 1]
    per_class = [int(np.sum(video_label == c)) for c in only]
    variance = float(np.nanvar(drawn)) if np.isfinite(drawn).any() else 0.0
    if variance < _NO_WIDTH or not 0 < value < 1:
        return float(min(per_class))
    samples, videos = int(np.isin(label, only).sum()), sum(per_class)
    free, free_videos = samples - len(only), videos - len(only)
    clustering = samples / free * free_videos / videos
    quotient = float(special.stdtrit(free, 0.975) / special.stdtrit(free_videos, 0.975))
    return value * (1 - value) / variance * clustering * quotient**2


def _few_above(metric: Metric, video_label: IntArray) -> str | None:
    """Why a metric that is read at an FPR hangs on too few reals; fewer than five give no interval."""
    reals = int(np.sum(video_label == 0))
    if metric.fpr is None or reals * metric.fpr >= _FEWEST_ERRORS - 1e-9:
        return None
    needed = math.ceil(_FEWEST_ERRORS / metric.fpr - 1e-9)
    return f"FPR {metric.fpr:g} of {reals} real videos is fewer than 5 of them (at least {needed} needed)"


def _blocker(label: IntArray, video: IntArray, counts: NDArray[np.uint16]) -> str | None:
    if not len(counts):
        return "bootstrap_samples is 0"
    for value, word in ((0, "real"), (1, "fake")):
        if len(np.unique(video[label == value])) == 1:
            return f"1 {word} video cannot be resampled (at least 2 needed)"
    return None
