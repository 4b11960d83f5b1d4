"""DeLong's variance of the AUC and of a difference of AUCs, with frames clustered by video.

DeLong, DeLong and Clarke-Pearson (1988) by placement values; summed over the videos as in Obuchowski (1997),
which is DeLong's own where every video is one sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from effort_finetune.core.weighted import FloatArray, IntArray


@dataclass(frozen=True)
class Placed:
    """An AUC and what each video contributes to its variance.

    Attributes:
        auc: The AUC of the samples.
        parts: ``float64[V]``: the video's placement values less its share of the AUC, over the class size.
        video_label: ``int64[V]``, 0 real, 1 fake.
    """

    auc: float
    parts: FloatArray
    video_label: IntArray

    def covariance(self, other: Placed) -> float:
        """Returns the covariance with the AUC of another detector on the same videos."""
        total = 0.0
        for value in (0, 1):
            own = self.video_label == value
            n = int(own.sum())
            total += n / (n - 1) * float(self.parts[own] @ other.parts[own])
        return total

    @property
    def variance(self) -> float:
        """The variance of the AUC."""
        return self.covariance(self)


def placed(label: IntArray, prob: FloatArray, video: IntArray, video_label: IntArray) -> Placed:
    """Computes the AUC and its placement values.

    Args:
        label: ``[N]``, both classes present.
        prob: ``[N]``, probability of fake.
        video: ``[N]``, the video of each sample.
        video_label: ``[V]``; every class needs two videos for a variance.
    """
    fake = label == 1
    reals, fakes = np.sort(prob[~fake]), np.sort(prob[fake])
    placement = np.empty(len(prob))
    placement[fake] = _share_below(reals, prob[fake])
    placement[~fake] = 1 - _share_below(fakes, prob[~fake])
    auc = float(np.mean(placement[fake]))
    size = np.where(fake, fake.sum(), (~fake).sum())
    parts = np.bincount(video, weights=(placement - auc) / size, minlength=len(video_label))
    return Placed(auc, parts.astype(np.float64), video_label)


def logit_interval(
    value: float, parts: FloatArray, group: IntArray | FloatArray, level: float, *, excess: float | None
) -> tuple[float, float]:
    """Returns the interval of a value strictly between 0 and 1, symmetric on the logit scale.

    Of few videos the variance itself is known badly; its uncertainty enters by Student's t at the degrees of
    freedom of that variance (Satterthwaite's, with the parts' excess kurtosis). ``benchmarks/coverage.py``
    measures what comes of it.

    Args:
        value: Of the sample.
        parts: ``[G]``, what each video contributes.
        group: ``[G]``, the class each belongs to, 0 or 1.
        level: Nominal coverage.
        excess: How much of the excess kurtosis counts; ``None`` takes the normal quantile.
    """
    variance = uncertainty = 0.0
    for own in (parts[group == 0], parts[group == 1]):
        if (n := len(own)) < 2:
            continue
        square = float(own @ own)
        part = n / (n - 1) * square
        kurtosis = max(float(np.sum(own**4)) * n / square**2 - 3, 0.0) if square > 0 else 0.0
        variance += part
        uncertainty += part**2 * (2 / (n - 1) + (excess or 0.0) * kurtosis / n)
    tail = (1 + level) / 2
    quantile = float(special.ndtri(tail))
    if excess is not None and uncertainty > 0:
        quantile = float(special.stdtrit(max(2 * variance**2 / uncertainty, 2.0), tail))
    half = quantile * np.sqrt(variance) / (value * (1 - value))
    centre = np.log(value / (1 - value))
    return float(special.expit(centre - half)), float(special.expit(centre + half))


def difference_test(a: Placed, b: Placed) -> tuple[float, float]:
    """Tests whether two detectors have the same AUC on the same videos.

    Returns:
        Standard error of ``b - a`` and the two-sided p of DeLong's z test; p is 1 where nothing differs and
        the standard error is 0.
    """
    # Differences first: a variance of 0 comes out as 0.
    parts = Placed(b.auc - a.auc, b.parts - a.parts, a.video_label)
    error = float(np.sqrt(parts.variance))
    if error == 0:
        return 0.0, 1.0 if parts.auc == 0 else 0.0
    return error, float(2 * special.ndtr(-abs(parts.auc) / error))


def _share_below(ordered: FloatArray, values: FloatArray) -> FloatArray:
    below = np.searchsorted(ordered, values, side="left")
    return (below + np.searchsorted(ordered, values, side="right")) / (2 * len(ordered))
