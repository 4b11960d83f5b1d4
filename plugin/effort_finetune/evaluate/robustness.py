"""What corruptions do to a detector: each at five levels, through the loader that scored the dataset.

The curve is the video AUC; beside it stand its paired difference from the pictures as they are, the relative
change (AUC - AUC_raw) / AUC_raw (Haliassos et al. 2021 and Effort's appendix), its mean over the levels, and
how many verdicts flip.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from effort_finetune.core import ranks
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.metrics import TABLE
from effort_finetune.core.progress import bar
from effort_finetune.core.weighted import FloatArray
from effort_finetune.data.corruptions import CORRUPTIONS, LEVELS, Corrupting, choose_corruptions, why_not
from effort_finetune.evaluate.dataset_scores import score_dataset
from effort_finetune.evaluate.intervals import LEVEL, auc_interval
from effort_finetune.evaluate.level_samples import Level
from effort_finetune.evaluate.paired import differences
from effort_finetune.evaluate.resampling import resample_videos
from effort_finetune.evaluate.video import VideoScores, video_scores

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.evaluate.dataset_results import DatasetResult

logger = logging.getLogger(__name__)


def add_robustness(
    model: nn.Module,
    settings: Settings,
    results: Mapping[str, DatasetResult],
    *,
    autocast: torch.dtype | None,
    should_stop: Callable[[], bool],
) -> None:
    """Measures ``settings.robustness`` and adds it to each dataset's block, corruption by corruption.

    What was measured before a failure stays in the blocks.

    Args:
        model: The detector on its device.
        settings: ``robustness``, ``threshold``, seed and loader.
        results: The datasets, scored as they are.
        autocast: Precision of the forward pass.
        should_stop: Asked before each batch.

    Raises:
        Interrupted: If ``should_stop`` said so.
        RunFailure: A corrupted dataset lacks videos that the dataset as it is has.
    """
    names = choose_corruptions(settings.robustness)
    known = {name: result for name, result in results.items() if result.videos is not None}
    work = [
        (result, name, why_not(name, videos=_has_videos(result)))
        for result in known.values()
        for name in names
    ]
    total = LEVELS * sum(reason is None for _, _, reason in work)
    with bar(total=total, desc="robustness", unit="level") as progress:
        for result, name, reason in work:
            block = result.block.setdefault("robustness", {"corruptions": {}, "left_out": {}})
            if reason is not None:
                block["left_out"][name] = reason
                continue
            curve = []
            for level in range(1, LEVELS + 1):
                corrupting = Corrupting(name, level, settings.manualSeed)
                curve.append(_scored(model, settings, result, corrupting, autocast, should_stop))
                progress.update()
            if not ranks.current().leads:
                continue  # the first process says what it means
            assert result.videos is not None
            block["corruptions"][name] = measured(name, result.videos, curve, settings)
            logger.info("%s: %s", result.name, _line(name, block["corruptions"][name]))


def measured(name: str, raw: VideoScores, curve: list[VideoScores], settings: Settings) -> dict[str, Any]:
    """Returns the block of one corruption of one dataset.

    Args:
        name: The corruption.
        raw: Scores of the videos as they are.
        curve: Scores of the same videos at each level.
        settings: For threshold, seed and number of resamples.
    """
    counts = resample_videos(raw.label, samples=settings.bootstrap_samples, seed=settings.manualSeed)
    first = _level(raw, settings.threshold)
    auc = {"auc": TABLE["auc"].function}
    drawn = first.sorted().apply(auc, counts)["auc"]
    points, changes = [], []
    auc_raw: float | None = None
    relative: list[float | None] = []
    for level, videos in enumerate(curve, start=1):
        second = _level(videos, settings.threshold)
        gap = differences(first, second, ["auc"])["auc"]
        auc_raw = gap.first
        relative.append(_relative(gap.first, gap.second))
        verdicts = (raw.prob > settings.threshold, videos.prob > settings.threshold)
        correct = (verdicts[1] == (raw.label == 1)).mean()
        points.append(
            {
                "level": level,
                "value": CORRUPTIONS[name].values[level - 1],
                "auc": gap.second,
                "auc_ci95": auc_interval(gap.second, videos.label, videos.prob),
                "change": gap.change,
                "change_ci95": None if gap.interval is None else list(gap.interval),
                "relative_change": relative[-1],
                "acc": float(correct),
                "flips": _flips(*verdicts),
            }
        )
        with np.errstate(divide="ignore", invalid="ignore"):  # of a resample whose AUC is 0
            changes.append(second.sorted().apply(auc, counts)["auc"] / drawn - 1)
    return {
        "title": CORRUPTIONS[name].title,
        "auc_raw": auc_raw,
        "mean_relative_drop": None if None in relative else float(np.mean([v or 0.0 for v in relative])),
        "mean_relative_drop_ci95": _percentiles(np.mean(changes, axis=0)),
        "videos": len(raw.video),
        "levels": points,
    }


def _scored(
    model: nn.Module,
    settings: Settings,
    result: DatasetResult,
    corrupting: Corrupting,
    autocast: torch.dtype | None,
    should_stop: Callable[[], bool],
) -> VideoScores:
    dataset = result.dataset.corrupted(corrupting)
    desc = f"{result.name} {corrupting.name} {corrupting.level}"
    scores = score_dataset(model, dataset, settings, autocast=autocast, desc=desc, should_stop=should_stop)
    videos = video_scores(dataset.rows, scores)
    if result.videos is None or videos.video != result.videos.video:
        raise RunFailure(f"{desc}: other videos could be read than before; next: check the dataset")
    return videos


def _has_videos(result: DatasetResult) -> bool:
    return max(Counter(row.video for row in result.dataset.rows).values(), default=0) > 1


def _level(videos: VideoScores, threshold: float) -> Level:
    return Level(videos.label, videos.prob, np.arange(len(videos.video)), threshold)


def _relative(raw: float | None, value: float | None) -> float | None:
    return None if not raw or value is None else (value - raw) / raw


def _flips(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    to_fake, to_real = int(np.sum(~before & after)), int(np.sum(before & ~after))
    return {"to_fake": to_fake, "to_real": to_real, "share": (to_fake + to_real) / len(before)}


def _percentiles(drawn: FloatArray) -> list[float] | None:
    if not len(drawn) or not np.isfinite(drawn).all():
        return None
    return [float(v) for v in np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))]


def _line(name: str, block: Mapping[str, Any]) -> str:
    values = " ".join("-" if p["auc"] is None else f"{p['auc']:.3f}" for p in block["levels"])
    return f"{name}: video AUC {values} at levels 1 to {LEVELS}"
