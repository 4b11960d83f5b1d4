"""From scores to the block of one dataset in the results file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effort_finetune.core.escaping import visible
from effort_finetune.core.files import sha256_file
from effort_finetune.core.metrics import binary_metrics
from effort_finetune.data.confounds import container_score
from effort_finetune.data.dataset_name import file_stem
from effort_finetune.evaluate.calibrated_block import calibrated_block, calibration_warnings, kind_of
from effort_finetune.evaluate.dataset_results import DatasetResult
from effort_finetune.evaluate.group_rows import group_rows
from effort_finetune.evaluate.host_metrics import host_metrics
from effort_finetune.evaluate.intervals import confidence_intervals
from effort_finetune.evaluate.predictions import Scores
from effort_finetune.evaluate.protocol import auc_warnings, class_warnings, leakage_warnings
from effort_finetune.evaluate.resampling import resample_videos
from effort_finetune.evaluate.score_file import frames_digest, write_scores
from effort_finetune.evaluate.video import VideoScores, video_scores

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.frames import FrameDataset, FrameRow
    from effort_finetune.host import Host
    from effort_finetune.weights.stored_calibration import StoredCalibration


def measure(
    host: Host,
    settings: Settings,
    name: str,
    split: str,
    dataset: FrameDataset,
    scores: Scores,
    *,
    bootstrap_samples: int,
    seconds: float,
    output_dir: Path | None,
    calibration: StoredCalibration | None = None,
) -> DatasetResult:
    """Counts, writes the score file and computes every number of one dataset.

    Args:
        host: For its own metrics.
        settings: For threshold, seed and ``max_missing_rate``.
        name: The dataset.
        split: The split that was scored.
        dataset: Its frames.
        scores: Their scores.
        bootstrap_samples: Resamples of the intervals.
        seconds: What scoring took.
        output_dir: Folder for ``scores/``; ``None`` writes none.
        calibration: What the weights carry.

    Returns:
        The result; its status is ``failed``, without metrics, when too many frames are missing or a score is
            not finite.
    """
    missing = [dataset.rows[i].path for i in scores.missing]
    rate = len(missing) / len(dataset.rows)
    stem = file_stem(name)
    file = f"scores/{stem}.csv" if split == "test" else f"scores/{stem}_{split}.csv"
    videos = video_scores(dataset.rows, scores)
    listed = sum(part["videos_listed"] for part in dataset.protocol["datasets"].values())
    block: dict[str, Any] = {
        "status": "complete",
        "reason": None,
        "split": split,
        "counts": counts_of(dataset.rows, listed, dataset.frames_asked, scores, videos),
        "missing": missing,
        "frame": None,
        "video": None,
        "loss": None,
        "host_metrics": None,
        "warnings": [*leakage_warnings(dataset, split), *class_warnings(name, videos.label)],
        "protocol": dataset.protocol,
        "frames_sha256": frames_digest(dataset.rows[i] for i in scores.index),
        "scores": None,
        "scores_sha256": None,
        "timings": {"scoring_s": seconds, "frames_per_s": len(scores.index) / seconds},
    }
    if split == "test":
        _add_container(block, name, dataset, seed=settings.manualSeed)
    if output_dir is not None:
        write_scores(output_dir / file, dataset.rows, scores)
        block["scores"], block["scores_sha256"] = file, sha256_file(output_dir / file)
    if rate > settings.max_missing_rate:
        block["status"] = "failed"
        block["reason"] = (
            f"{len(missing)} of {len(dataset.rows)} {split} frames of {name} could not be read "
            f"({rate:.2%}, allowed {settings.max_missing_rate:.2%}), first {missing[0]}; "
            "next: fix the dataset or raise --max_missing_rate"
        )
        return DatasetResult(name, block, dataset, scores, None)
    if (reason := _not_finite(name, dataset, scores)) is not None:
        block["status"], block["reason"] = "failed", reason
        return DatasetResult(name, block, dataset, scores, None)
    block.update(
        metric_blocks(
            scores, videos, threshold=settings.threshold, samples=bootstrap_samples, seed=settings.manualSeed
        )
    )
    block["warnings"] += auc_warnings(name, block)
    if calibration is not None and np.isfinite(videos.prob).all():
        block["calibrated"] = calibrated_block(calibration, videos.label, videos.prob)
        kind = kind_of(dataset.protocol)
        block["warnings"] += calibration_warnings(calibration, name, kind, block["frames_sha256"])
    group_of = {row.video: row.label_name for row in dataset.rows}
    block["groups"] = group_rows(group_of, videos, threshold=settings.threshold)
    block["host_metrics"] = host_metrics(host, scores, [dataset.rows[i].path for i in scores.index])
    return DatasetResult(name, block, dataset, scores, videos)


def _not_finite(name: str, dataset: FrameDataset, scores: Scores) -> str | None:
    """Says which scores are no numbers: a mean over the others would be of frames that nobody chose."""
    broken = np.flatnonzero(~np.isfinite(scores.prob))
    if not len(broken):
        return None
    return (
        f"{len(broken)} of {len(scores.prob)} scores of {name} are not finite, first that of "
        f"{visible(dataset.rows[scores.index[broken[0]]].path)}; next: check mean and std and the weights "
        "(effort-finetune inspect); in 16 bits set --precision float32"
    )


def _add_container(block: dict[str, Any], name: str, dataset: FrameDataset, *, seed: int) -> None:
    """Adds how well the files alone tell the classes apart, and a warning where they do."""
    labels, videos = [row.label for row in dataset.rows], [row.video for row in dataset.rows]
    container = container_score(dataset.encoded, labels, videos, seed=seed)
    block["protocol"] = {**dataset.protocol, "container": container.to_dict()}
    block["warnings"] += [f"{name}: {container.sentence()}"] if container.warns else []


def metric_blocks(
    scores: Scores, videos: VideoScores, *, threshold: float, samples: int, seed: int
) -> dict[str, Any]:
    """Returns the ``frame``, ``video`` and ``loss`` blocks of one dataset.

    Args:
        scores: Frame scores.
        videos: The same, by video.
        threshold: Above it a frame or video is called fake.
        samples: Resamples of the intervals.
        seed: Of the resamples.
    """
    counts = resample_videos(videos.label, samples=samples, seed=seed)
    levels = {
        "frame": (scores.label, scores.prob, videos.video_of_frame),
        "video": (videos.label, videos.prob, np.arange(len(videos.video))),
    }
    blocks: dict[str, Any] = {}
    for level, (label, prob, video) in levels.items():
        block = binary_metrics(label, prob, threshold=threshold)
        block["ci95"] = confidence_intervals(block, label, prob, video, counts, threshold=threshold)
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


def counts_of(
    rows: Sequence[FrameRow], listed: int, asked: int | None, scores: Scores, videos: VideoScores
) -> dict[str, Any]:
    """Returns the ``counts`` block of one dataset.

    Args:
        rows: All of its frames.
        listed: Videos that it lists.
        asked: Frames asked for per video; ``None`` where nobody here asked.
        scores: What was scored of them.
        videos: The same, by video.
    """
    used = videos.frames
    return {
        "videos_listed": listed,
        "videos_scored": len(videos.video),
        "videos_real": int(np.sum(videos.label == 0)),
        "videos_fake": int(np.sum(videos.label == 1)),
        "frames_listed": len(rows),
        "frames_scored": len(scores.index),
        "frames_missing": len(scores.missing),
        "frames_real": int(np.sum(scores.label == 0)),
        "frames_fake": int(np.sum(scores.label == 1)),
        "frames_asked_per_video": asked,
        "frames_used_per_video": {
            "min": int(used.min()) if len(used) else None,
            "mean": float(used.mean()) if len(used) else None,
            "max": int(used.max()) if len(used) else None,
        },
    }
