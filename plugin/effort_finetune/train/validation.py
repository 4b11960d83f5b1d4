"""From the results of a validation to what the engine keeps of them, and what a choice by them is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from effort_finetune.evaluate.dataset_block import metric_blocks
from effort_finetune.evaluate.dataset_results import DatasetResult, DatasetResults, parse_metric
from effort_finetune.evaluate.intervals import room_for_errors
from effort_finetune.train.selection import Measured, Selector

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.frames import FrameDataset

_LEVEL = ("auc", "ap", "eer", "acc", "acc_real", "acc_fake", "precision", "recall", "f1")
KEPT = ("loss", *_LEVEL, *(f"video_{name}" for name in _LEVEL))
#: A 95 % interval wider than this says little of which epoch is the best.
WIDE = 0.1
#: Of fewer videos of a class no interval says anything.
FEW = 10


def numbers_of(result: DatasetResult) -> dict[str, float | None]:
    """Returns what history and TensorBoard keep of a dataset's measurement."""
    return {name: result.metric(name) for name in KEPT}


def measured_of(results: DatasetResults, settings: Settings) -> Measured:
    """Returns what the engine keeps of a validation.

    Args:
        results: Of every dataset that chooses the checkpoint.
        settings: ``metric_scoring`` and what the interval needs.
    """
    found, metric = results.datasets, settings.metric_scoring
    return Measured(
        values={name: result.metric(metric) for name, result in found.items()},
        numbers={name: numbers_of(result) for name, result in found.items()},
        missing={name: result.block["counts"]["frames_missing"] for name, result in found.items()},
        interval=lambda: {name: _interval(result, settings) for name, result in found.items()},
    )


def _interval(result: DatasetResult, settings: Settings) -> list[float] | None:
    level, metric = parse_metric(settings.metric_scoring)
    if result.videos is None or metric == "loss" or not settings.bootstrap_samples:
        return None
    blocks = metric_blocks(
        result.scores,
        result.videos,
        threshold=settings.threshold,
        samples=settings.bootstrap_samples,
        seed=settings.manualSeed,
    )
    ends = blocks[level]["ci95"]["intervals"].get(metric)
    return None if ends is None else [float(end) for end in ends]


def choice_warnings(
    selector: Selector,
    start: Mapping[str, Any] | None,
    history: Sequence[Mapping[str, Any]],
    videos: Mapping[str, tuple[int, int]],
) -> list[str]:
    """Returns why the choice of the checkpoint is worth less than it looks.

    Val is too small to choose where it has fewer than :data:`FEW` videos of a class, or where the interval
    of the metric at the selected epoch is wider than :data:`WIDE` and holds what every other epoch scored:
    any of them might have been chosen. A perfect value has no interval; there the videos are counted.

    Args:
        selector: What chose.
        start: What the weights scored before the first step.
        history: The epochs.
        videos: Real and fake videos of the data that chose, by dataset.
    """
    best = selector.best
    if best is None or best["value"] is None:
        return []
    entry = next(e for e in history if e["epoch"] == best["epoch"])
    warnings = [w for name, numbers in entry["selection"].items() for w in low_auc(name, numbers)]
    before = None if start is None else start["selection_value"]
    sign = 1 if selector.higher_is_better else -1
    if before is not None and sign * (best["value"] - before) <= 0:
        warnings.append(
            f"no epoch was better than the weights before the first step: {selector.metric} {before:.4f} "
            f"then, {best['value']:.4f} at the selected epoch"
        )
    few = [
        f"val is too small to choose an epoch: {name} has {real} real and {fake} fake videos, and fewer than "
        f"{FEW} of a class rank epochs by luck"
        for name, (real, fake) in videos.items()
        if len(history) > 1 and min(real, fake) < FEW
    ]
    if few:
        return warnings + few
    others = [e["selection_value"] for e in history if e is not entry and e["selection_value"] is not None]
    half = _half_width(list((entry.get("selection_interval") or {}).values()))
    if others and half is None and abs(best["value"] - float(selector.higher_is_better)) < 1e-12:
        warnings += [
            f"val is too small to choose an epoch: {selector.metric} is {best['value']:g} on {real} real and "
            f"{fake} fake videos of {name}, and {room}"
            for name, (real, fake) in videos.items()
            if (room := room_for_errors(real, fake)) is not None
        ]
    if others and half is not None and 2 * half > WIDE:
        low, high = best["value"] - half, best["value"] + half
        if all(low <= value <= high for value in others):
            warnings.append(
                f"val is too small to choose an epoch: {selector.metric} {best['value']:.4f} has a 95 % "
                f"interval {2 * half:.2f} wide, within which every other epoch lies"
            )
    return warnings


def low_auc(name: str, numbers: Mapping[str, float | None]) -> list[str]:
    """Returns a sentence for each AUC of a dataset that is below one half."""
    return [
        f"{name}: {metric} {value:.4f} is below 0.5: the labels may be swapped, or nothing was learned that "
        "holds for these frames"
        for metric, value in numbers.items()
        if metric in ("auc", "video_auc") and value is not None and value < 0.5
    ]


def _half_width(intervals: Sequence[Sequence[float] | None]) -> float | None:
    """Returns half the width of the interval of a mean over datasets; ``None`` where one is not known."""
    widths = [None if ends is None else (ends[1] - ends[0]) / 2 for ends in intervals]
    known = [width for width in widths if width is not None]
    return math.hypot(*known) / len(known) if known and len(known) == len(widths) else None


def class_videos(datasets: Mapping[str, FrameDataset]) -> dict[str, tuple[int, int]]:
    """Returns how many real and fake videos each dataset has."""
    counts = {}
    for name, frames in datasets.items():
        fakes = {row.video: row.label for row in frames.rows}
        fake = sum(label != 0 for label in fakes.values())
        counts[name] = (len(fakes) - fake, fake)
    return counts
