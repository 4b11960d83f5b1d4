"""95 % confidence intervals by a stratified bootstrap over videos.

Frames of one video are not independent, so whole videos are drawn, for frame metrics too; real and
fake videos are drawn apart so that every resample keeps the class counts. A resample is a vector of
multiplicities, and all metrics come from cumulative sums over frames sorted once, for many resamples
at a time: no resample is sorted or copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effort_finetune.core.metrics import FPR_TARGETS, METRICS
from effort_finetune.core.seeding import derive

#: Metrics that get an interval; the bootstrap of ECE is biased upwards and is left out.
BOOTSTRAPPED = tuple(name for name in METRICS if name != "ece")
LEVEL = 0.95
_NO_WIDTH = 1e-12  # sums in another order differ by less
_CHUNK_ELEMENTS = 1 << 19  # of float64 per temporary array: 4 MB, which stays in the cache

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def resample_videos(video_label: IntArray, *, samples: int, seed: int) -> NDArray[np.uint16]:
    """Draws videos with replacement within each class.

    Args:
        video_label: ``[V]``, 0 real, 1 fake.
        samples: Number of resamples ``B``.
        seed: The run's seed; the draws come from streams of their own.

    Returns:
        ``uint16[B, V]``: how often each video was drawn. Row sums per class are the class sizes.
    """
    counts = np.zeros((samples, len(video_label)), dtype=np.uint16)
    for value in (0, 1):
        columns = np.flatnonzero(video_label == value)
        if not len(columns):
            continue
        rng = np.random.default_rng(derive(seed, "bootstrap", value))
        for row in range(samples):
            drawn = rng.integers(0, len(columns), size=len(columns))
            counts[row, columns] = np.bincount(drawn, minlength=len(columns))
    return counts


def confidence_intervals(
    point: Mapping[str, Any],
    label: IntArray,
    prob: FloatArray,
    video: IntArray,
    counts: NDArray[np.uint16],
    *,
    threshold: float,
) -> dict[str, Any]:
    """Returns percentile intervals for one block of metrics.

    Args:
        point: The block of :func:`~effort_finetune.core.metrics.binary_metrics`: a metric without a
            value gets no interval, for the same reason.
        label: ``[N]``, 0 real, 1 fake.
        prob: ``[N]``, probability of fake.
        video: ``[N]``, the video of each sample, a column of ``counts``.
        counts: ``[B, V]`` of :func:`resample_videos`.
        threshold: The decision threshold of the point values.

    Returns:
        ``intervals`` (metric to ``[low, high]`` or ``None``) and ``null_reasons``.
    """
    intervals: dict[str, list[float] | None] = dict.fromkeys(BOOTSTRAPPED)
    reasons = {name: point["null_reasons"][name] for name in BOOTSTRAPPED if point[name] is None}
    wanted = [name for name in BOOTSTRAPPED if name not in reasons]
    blocker = _blocker(label, video, counts)
    if blocker is not None:
        reasons.update(dict.fromkeys(wanted, blocker))
    elif wanted:
        values = resampled_metrics(label, prob, video, counts, threshold=threshold)
        tail = (1.0 - LEVEL) / 2
        for name in wanted:
            undefined = int(np.sum(~np.isfinite(values[name])))
            if undefined:
                reasons[name] = f"undefined in {undefined} of {len(counts)} resamples"
            else:
                low, high = np.quantile(values[name], (tail, 1.0 - tail))
                # A perfect AUC stays perfect in every resample, be it of four videos: that is no certainty.
                if high - low < _NO_WIDTH:
                    reasons[name] = f"{len(counts)} resamples do not differ, which bounds nothing"
                else:
                    intervals[name] = [float(low), float(high)]
    return {"intervals": intervals, "null_reasons": reasons}


def resampled_metrics(
    label: IntArray,
    prob: FloatArray,
    video: IntArray,
    counts: NDArray[np.uint16],
    *,
    threshold: float,
) -> dict[str, FloatArray]:
    """Computes the metrics of every resample.

    Returns:
        Metric name to ``float64[B]``; NaN marks a resample in which the metric is undefined.
    """
    order = np.argsort(-prob, kind="stable")
    p, y, v = prob[order], label[order].astype(np.float64), video[order]
    ends = np.append(np.flatnonzero(np.diff(p)), len(p) - 1)  # last sample of each distinct score
    called = int(np.sum(p > threshold))
    squared_error = (p - y) ** 2
    parts: dict[str, list[FloatArray]] = {name: [] for name in BOOTSTRAPPED}
    for rows in _chunks(len(counts), len(p)):
        weight = counts[rows][:, v].astype(np.float64)
        total = np.cumsum(weight, axis=1)
        positive = np.cumsum(weight * y, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            chunk = _ranking_metrics(positive[:, ends], total[:, ends])
            chunk |= _decision_metrics(positive, total, called)
            chunk["brier"] = weight @ squared_error / total[:, -1]
        for name, values in chunk.items():
            parts[name].append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _ranking_metrics(positive: FloatArray, total: FloatArray) -> dict[str, FloatArray]:
    """Metrics of the ROC and PR curves from cumulative weights ``[b, T]`` at descending thresholds."""
    negative = total - positive
    gained = np.diff(positive, axis=1, prepend=0.0)
    fakes, reals = positive[:, -1:], negative[:, -1:]
    area = np.diff(negative, axis=1, prepend=0.0) * (positive - gained / 2)
    # A leading threshold that no drawn sample passes has precision 0/0 and gains nothing.
    precision = np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)
    origin = np.zeros((len(positive), 1))
    tpr = np.hstack([origin, positive / fakes])
    fpr = np.hstack([origin, negative / reals])
    return {
        "auc": area.sum(axis=1) / (fakes * reals)[:, 0],
        "ap": (gained * precision).sum(axis=1) / fakes[:, 0],
        "eer": _equal_error_rates(fpr, tpr),
        **{name: _tpr_at(fpr, tpr, target) for name, target in FPR_TARGETS.items()},
    }


def _equal_error_rates(fpr: FloatArray, tpr: FloatArray) -> FloatArray:
    difference = fpr + tpr - 1.0  # from -1 to 1 along the curve
    after = np.argmax(difference >= 0.0, axis=1)
    # Rounding may leave the last point an ulp under its exact value 1; it is far above 0.
    row, before = np.arange(len(fpr)), np.maximum(after - 1, 0)
    share = -difference[row, before] / (difference[row, after] - difference[row, before])
    return fpr[row, before] + share * (fpr[row, after] - fpr[row, before])


def _tpr_at(fpr: FloatArray, tpr: FloatArray, target: float) -> FloatArray:
    row = np.arange(len(fpr))
    left = np.sum(fpr <= target, axis=1) - 1
    right = np.minimum(left + 1, fpr.shape[1] - 1)
    width = fpr[row, right] - fpr[row, left]
    share = np.divide(target - fpr[row, left], width, out=np.zeros_like(width), where=width > 0)
    return tpr[row, left] + share * (tpr[row, right] - tpr[row, left])


def _decision_metrics(positive: FloatArray, total: FloatArray, called: int) -> dict[str, FloatArray]:
    """Metrics at the threshold, from cumulative weights ``[b, N]``; the first ``called`` are called fake."""
    tp = positive[:, called - 1] if called else np.zeros(len(positive))
    fp = (total[:, called - 1] if called else np.zeros(len(total))) - tp
    fakes = positive[:, -1]
    reals = total[:, -1] - fakes
    return {
        "acc": (tp + reals - fp) / (fakes + reals),
        "acc_real": (reals - fp) / reals,
        "acc_fake": tp / fakes,
        "balanced_acc": ((reals - fp) / reals + tp / fakes) / 2,
        "precision": tp / (tp + fp),
        "recall": tp / fakes,
        "f1": 2 * tp / (tp + fp + fakes),
    }


def _blocker(label: IntArray, video: IntArray, counts: NDArray[np.uint16]) -> str | None:
    if not len(counts):
        return "bootstrap_samples is 0"
    for value, word in ((0, "real"), (1, "fake")):
        videos = len(np.unique(video[label == value]))
        if videos == 1:
            return f"1 {word} video cannot be resampled (at least 2 needed)"
    return None


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _CHUNK_ELEMENTS // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
