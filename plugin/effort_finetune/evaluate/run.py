"""Evaluating a detector on data sets of a host."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from effort_finetune.data.frames import FrameDataset, open_frames
from effort_finetune.data.loader import make_loader
from effort_finetune.errors import RunFailure, UserError, UserErrors
from effort_finetune.evaluate.dataset_results import DatasetResult, DatasetResults
from effort_finetune.evaluate.device import choose_autocast
from effort_finetune.evaluate.host_metrics import host_metrics
from effort_finetune.evaluate.metrics import binary_metrics
from effort_finetune.evaluate.protocol import leakage_warnings
from effort_finetune.evaluate.scores import write_scores
from effort_finetune.evaluate.scoring import Scores, score
from effort_finetune.evaluate.statistics import confidence_intervals, resample_videos
from effort_finetune.evaluate.video import VideoScores, video_scores

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host


class EvaluationFailure(RunFailure):
    """An evaluation stopped part of the way.

    Attributes:
        results: The data sets done so far; the one that failed is the last, with ``status: failed``
            when it got as far as having counts.
    """

    def __init__(self, message: str, results: DatasetResults) -> None:
        super().__init__(message)
        self.results = results


def open_datasets(
    host: Host, settings: Settings, names: Sequence[str], split: str
) -> dict[str, FrameDataset]:
    """Opens one split of every data set, so that all user errors are known before the first is scored.

    Raises:
        UserErrors: One line for each data set that cannot be opened.
    """
    if not names:
        raise UserError("--test_dataset", got="no names", expected="at least one data set")
    opened: dict[str, FrameDataset] = {}
    errors: list[UserError] = []
    for name in dict.fromkeys(names):
        try:
            opened[name] = open_frames(host, settings, split=split, names=[name])
        except UserErrors as several:
            errors.extend(several.errors)
        except UserError as error:
            errors.append(error)
    if errors:
        raise UserErrors(errors)
    return opened


def evaluate_model(
    model: nn.Module,
    host: Host,
    settings: Settings,
    names: Sequence[str],
    split: str = "test",
    *,
    datasets: Mapping[str, FrameDataset] | None = None,
    output_dir: Path | None = None,
    autocast: torch.dtype | str | None = "settings",
    bootstrap_samples: int | None = None,
) -> DatasetResults:
    """Scores a model that is already on its device and measures it, one data set after the other.

    Args:
        model: A DeepfakeBench detector.
        host: The open host.
        settings: Resolved settings.
        names: Data sets, by their name in the host's index.
        split: ``test``, ``val`` or ``train``.
        datasets: What :func:`open_datasets` returned, to open them once for many evaluations.
        output_dir: Folder for ``scores/<dataset>.csv``; ``None`` writes none.
        autocast: Precision of the forward pass; ``"settings"`` asks the settings.
        bootstrap_samples: Resamples of the intervals; ``None`` asks the settings, 0 leaves them out.

    Raises:
        UserError: If a data set cannot be opened.
        EvaluationFailure: If more frames are missing than ``max_missing_rate`` allows, or scoring raised.
    """
    opened = dict(datasets) if datasets is not None else open_datasets(host, settings, names, split)
    device = next(model.parameters()).device
    dtype = choose_autocast(settings.precision, device) if isinstance(autocast, str) else autocast
    samples = settings.bootstrap_samples if bootstrap_samples is None else bootstrap_samples
    results: dict[str, DatasetResult] = {}
    for name in dict.fromkeys(names):
        try:
            result = _evaluate_one(
                model, host, settings, name, split, opened[name], dtype, samples, output_dir
            )
        except Exception as error:
            raise EvaluationFailure(
                f"evaluating {name} failed: {type(error).__name__}: {error}", DatasetResults(results)
            ) from error
        results[name] = result
        if result.block["status"] == "failed":
            raise EvaluationFailure(result.block["reason"], DatasetResults(results))
    return DatasetResults(results)


def _evaluate_one(
    model: nn.Module,
    host: Host,
    settings: Settings,
    name: str,
    split: str,
    dataset: FrameDataset,
    autocast: torch.dtype | None,
    samples: int,
    output_dir: Path | None,
) -> DatasetResult:
    device = next(model.parameters()).device
    loader = make_loader(
        dataset,
        batch_size=settings.test_batchSize,
        workers=settings.workers,
        seed=settings.manualSeed,
        pin_memory=device.type == "cuda",
    )
    start = time.perf_counter()
    scores = score(model, loader, device=device, autocast=autocast, desc=name)
    seconds = time.perf_counter() - start
    missing = [dataset.rows[i].path for i in scores.missing]
    rate = len(missing) / len(dataset.rows)
    file = f"scores/{name}.csv" if split == "test" else f"scores/{name}_{split}.csv"
    videos = video_scores(dataset.rows, scores)
    block: dict[str, Any] = {
        "status": "complete",
        "reason": None,
        "split": split,
        "counts": _counts(dataset, scores, videos),
        "missing": missing,
        "frame": None,
        "video": None,
        "loss": None,
        "host_metrics": None,
        "warnings": leakage_warnings(name, dataset, split),
        "protocol": dataset.protocol,
        "scores": None,
        "timings": {"scoring_s": seconds, "frames_per_s": len(scores.index) / seconds},
    }
    if output_dir is not None:
        write_scores(output_dir / file, dataset.rows, scores)
        block["scores"] = file
    if rate > settings.max_missing_rate:
        block["status"] = "failed"
        block["reason"] = (
            f"{len(missing)} of {len(dataset.rows)} {split} frames of {name} could not be read "
            f"({rate:.2%}, allowed {settings.max_missing_rate:.2%}), first {missing[0]}; "
            "next: mend the data set or raise --max_missing_rate"
        )
        return DatasetResult(name, block, dataset, scores, None)
    block.update(measure(settings, scores, videos, samples))
    block["host_metrics"] = host_metrics(host, scores, [dataset.rows[i].path for i in scores.index])
    return DatasetResult(name, block, dataset, scores, videos)


def measure(settings: Settings, scores: Scores, videos: VideoScores, samples: int) -> dict[str, Any]:
    """Returns the ``frame``, ``video`` and ``loss`` blocks of one data set.

    Args:
        settings: For threshold and seed.
        scores: Frame scores.
        videos: The same, by video.
        samples: Resamples of the intervals.
    """
    counts = resample_videos(videos.label, samples=samples, seed=settings.manualSeed)
    levels = {
        "frame": (scores.label, scores.prob, videos.video_of_frame),
        "video": (videos.label, videos.prob, np.arange(len(videos.video))),
    }
    blocks: dict[str, Any] = {}
    for level, (label, prob, video) in levels.items():
        block = binary_metrics(label, prob, threshold=settings.threshold)
        block["ci95"] = confidence_intervals(block, label, prob, video, counts, threshold=settings.threshold)
        blocks[level] = block
    blocks["loss"] = {**scores.loss, "null_reasons": _loss_reasons(scores)}
    return blocks


def _loss_reasons(scores: Scores) -> dict[str, str]:
    size = {
        "overall": len(scores.label),
        "real": int(np.sum(scores.label == 0)),
        "fake": int(np.sum(scores.label == 1)),
    }
    return {
        part: "a logit is not finite" if size[part] else "no such frame was scored"
        for part, value in scores.loss.items()
        if value is None
    }


def _counts(dataset: FrameDataset, scores: Scores, videos: VideoScores) -> dict[str, Any]:
    listed = {row.video for row in dataset.rows}
    used = videos.frames
    return {
        "videos_listed": len(listed),
        "videos_scored": len(videos.video),
        "videos_real": int(np.sum(videos.label == 0)),
        "videos_fake": int(np.sum(videos.label == 1)),
        "frames_listed": len(dataset.rows),
        "frames_scored": len(scores.index),
        "frames_missing": len(scores.missing),
        "frames_real": int(np.sum(scores.label == 0)),
        "frames_fake": int(np.sum(scores.label == 1)),
        "frames_asked_per_video": dataset.frames_asked,
        "frames_used_per_video": {
            "min": int(used.min()) if len(used) else None,
            "mean": float(used.mean()) if len(used) else None,
            "max": int(used.max()) if len(used) else None,
        },
    }
