"""Two detectors on the same videos: the difference of a metric, its interval, and what it could have been.

The interval of a difference of AUCs is DeLong's, so that it excludes 0 where his p is under .05. That of
every other metric is the percentile bootstrap's, both detectors on the same draws of videos: the difference
of two detectors that are alike is symmetric about 0, which leaves BCa's corrections nothing to correct.
``benchmarks/no_difference.py`` measures how often either sees a difference that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from effort_finetune.core.metrics import TABLE
from effort_finetune.core.weighted import FloatArray
from effort_finetune.evaluate.delong import difference_test, placed
from effort_finetune.evaluate.intervals import LEVEL, video_labels
from effort_finetune.evaluate.level_samples import Level
from effort_finetune.evaluate.resampling import resample_videos

POWER = 0.8
_NO_WIDTH = 1e-12
_FEW = "a class has fewer than 2 videos"


@dataclass(frozen=True)
class Difference:
    """One metric of two detectors on the same videos, the second less the first.

    Attributes:
        first: Value of the first detector.
        second: Value of the second.
        interval: Of the difference, 95 %; ``None`` with ``reason``.
        reason: Why there is no interval.
        p: Two-sided p of DeLong's test; only of an AUC.
        error: Standard error of the difference.
        videos: Videos of both.
    """

    first: float | None
    second: float | None
    interval: tuple[float, float] | None
    reason: str | None
    p: float | None
    error: float | None
    videos: int

    @property
    def change(self) -> float | None:
        """The second value less the first."""
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def detectable(self) -> float | None:
        """The smallest true difference these videos would show with power .8."""
        return _quantiles() * self.error if self.error else None

    def videos_needed(self, difference: float) -> int | None:
        """Returns how many videos, mixed as these are, show a true difference with power .8."""
        if self.detectable is None:
            return None
        return int(np.ceil(self.videos * (self.detectable / difference) ** 2))


def differences(
    first: Level, second: Level, names: Sequence[str], *, samples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """Compares two detectors by several metrics.

    Args:
        first: Samples of the first.
        second: Samples of the second; its videos are the first's.
        names: Metrics.
        samples: Resamples of what has no interval of DeLong's.
        seed: Of the resamples.

    Returns:
        Metric to what there is to say about it; an AUC has DeLong's p and standard error, the others the
        resamples' standard error.
    """
    video_label = video_labels(first.label, first.video)
    sides = (first.sorted(), second.sorted())
    functions = {name: TABLE[name].function for name in names}
    point = [side.apply(functions) for side in sides]
    bootstrapped = {name: function for name, function in functions.items() if name != "auc"}
    drawn: list[dict[str, FloatArray]] = [{}, {}]
    if bootstrapped:
        counts = resample_videos(video_label, samples=samples, seed=seed)
        drawn = [side.apply(bootstrapped, counts) for side in sides]
    few = min(int(video_label.sum()), int(np.sum(video_label == 0))) < 2
    found: dict[str, Difference] = {}
    for name in names:
        values = [
            None if TABLE[name].reason(side) or not np.isfinite(one[name][0]) else float(one[name][0])
            for side, one in zip(sides, point, strict=True)
        ]
        if values[0] is None or values[1] is None:
            why = TABLE[name].reason(sides[0]) or TABLE[name].reason(sides[1]) or TABLE[name].undefined
            found[name] = Difference(values[0], values[1], None, why, None, None, len(video_label))
            continue
        change = values[1] - values[0]
        if few:
            found[name] = Difference(values[0], values[1], None, _FEW, None, None, len(video_label))
        elif name == "auc":
            error, p = difference_test(
                *(placed(s.label, s.prob, s.video, video_label) for s in (first, second))
            )
            half = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
            bounds = (change - half, change + half) if error > 0 else None
            reason = None if error > 0 else "no video tells the two apart, which bounds nothing"
            found[name] = Difference(values[0], values[1], bounds, reason, p, error, len(video_label))
        else:
            found[name] = _bootstrapped(
                values[0], values[1], drawn[1][name] - drawn[0][name], len(video_label)
            )
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Returns p values adjusted for their number (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    highest = 0.0
    for rank, index in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return [float(value) for value in adjusted]


def _bootstrapped(first: float, second: float, gaps: FloatArray, videos: int) -> Difference:
    if (reason := _unbounded(gaps)) is not None:
        return Difference(first, second, None, reason, None, None, videos)
    low, high = np.quantile(gaps, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Difference(first, second, (float(low), float(high)), None, None, float(np.std(gaps)), videos)


def _unbounded(gaps: FloatArray) -> str | None:
    if not len(gaps):
        return "no resamples"
    if undefined := int(np.sum(~np.isfinite(gaps))):
        return f"undefined in {undefined} of {len(gaps)} resamples"
    if np.ptp(gaps) < _NO_WIDTH:
        return f"{len(gaps)} resamples do not differ, which bounds nothing"
    return None


def _quantiles() -> float:
    return float(stats.norm.ppf((1 + LEVEL) / 2) + stats.norm.ppf(POWER))
