"""What a leaderboard's numbers can decide: means over seeds with their errors, and who is told from the best.

A detector with several seeds stands for the mean of its AUCs. The error of that mean has two parts: the
videos (DeLong's placement values, averaged over the seeds) and the seeds (their deviation over the root of
their number). A difference of two detectors is paired on the videos that both scored; the differences to the
best of all columns are one family for Holm's correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from effort_finetune.evaluate.compared_runs import Run, levels_on
from effort_finetune.evaluate.delong import Placed, placed
from effort_finetune.evaluate.intervals import LEVEL, video_labels

ALPHA = 0.05
_QUANTILE = float(stats.norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Difference:
    """The best detector less another one, in one column.

    Attributes:
        change: The difference of the means.
        error: Its standard error over videos and seeds; ``None`` where scores or videos do not allow one.
    """

    change: float
    error: float | None

    @property
    def p(self) -> float | None:
        """Two-sided p; ``None`` without an error."""
        if self.error is None:
            return None
        if self.error == 0:
            return 1.0 if self.change == 0 else 0.0
        return float(2 * stats.norm.sf(abs(self.change) / self.error))


@dataclass(frozen=True)
class Parts:
    """A difference in one dataset, before its seeds are counted.

    Attributes:
        change: The difference of the means.
        video_variance: What the videos contribute; ``None`` where it cannot be known.
    """

    change: float
    video_variance: float | None


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean and, of several, the standard deviation (n - 1)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def seed_variance(values: Sequence[float]) -> float:
    """Returns the variance that the choice of seeds gives their mean, 0 of a single one."""
    return float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0


def mean_placed(runs: Sequence[Run], dataset: str, level: str, videos: Sequence[str]) -> Placed | None:
    """Returns the mean AUC of several seeds on chosen videos, with what each video contributes.

    The mean of AUCs on the same videos is a U-statistic whose placement values are the means of theirs.

    Args:
        runs: The seeds of one detector.
        dataset: The dataset.
        level: ``frame`` or ``video``.
        videos: The videos that count.

    Returns:
        ``None`` where a run keeps no scores, or a class has fewer than two of these videos.
    """
    number = {video: i for i, video in enumerate(videos)}
    found: list[Placed] = []
    for run in runs:
        scores = run.scores(dataset)
        if scores is None:
            return None
        side = levels_on(scores, number, run.threshold)[level]
        if not len(side.label) or not np.isfinite(side.prob).all():
            return None
        labels = video_labels(side.label, side.video)
        if min(int(labels.sum()), int(np.sum(labels == 0))) < 2:
            return None
        found.append(placed(side.label, side.prob, side.video, labels))
    parts = np.mean([one.parts for one in found], axis=0)
    return Placed(float(np.mean([one.auc for one in found])), parts, found[0].video_label)


def common_videos(runs: Sequence[Run], dataset: str) -> list[str]:
    """Returns the videos that all runs scored under one label, in the order of the first."""
    known: list[Mapping[str, int]] = []
    for run in runs:
        scores = run.scores(dataset)
        known.append({} if scores is None else dict(zip(scores.video, scores.label.tolist(), strict=True)))
    return [video for video, label in known[0].items() if all(other.get(video) == label for other in known)]


def paired_parts(best: Sequence[Run], other: Sequence[Run], dataset: str, level: str) -> Parts | None:
    """Compares two detectors on one dataset; ``None`` where they share too few videos."""
    videos = common_videos([*best, *other], dataset)
    sides = mean_placed(best, dataset, level, videos), mean_placed(other, dataset, level, videos)
    if sides[0] is None or sides[1] is None:
        return None
    gap = Placed(sides[0].auc - sides[1].auc, sides[0].parts - sides[1].parts, sides[0].video_label)
    return Parts(gap.auc, gap.variance)


def difference_of(
    parts: Sequence[Parts], best: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> Difference:
    """Returns the difference of two detectors' means over datasets, whose videos are taken as independent.

    Args:
        parts: Of each dataset.
        best: Values of the best detector: for each seed, one a dataset.
        other: The same of the other one.
    """
    change = float(np.mean([part.change for part in parts]))
    variances = [part.video_variance for part in parts]
    if any(variance is None for variance in variances):
        return Difference(change, None)
    videos = sum(variance for variance in variances if variance is not None) / len(parts) ** 2
    seeds = sum(seed_variance([float(np.mean(row)) for row in rows]) for rows in (best, other))
    return Difference(change, float(np.sqrt(videos + seeds)))


def interval_of(values: Sequence[float], runs: Sequence[Run], dataset: str, level: str) -> list[float] | None:
    """Returns the interval of seeds' mean AUC over videos and seeds, symmetric on the logit scale."""
    mean = float(np.mean(values))
    found = mean_placed(runs, dataset, level, common_videos(runs, dataset))
    if found is None or not 0 < mean < 1:
        return None
    error = float(np.sqrt(found.variance + seed_variance(values)))
    half = _QUANTILE * error / (mean * (1 - mean))
    centre = np.log(mean / (1 - mean))
    return [float(special.expit(centre - half)), float(special.expit(centre + half))] if half > 0 else None
