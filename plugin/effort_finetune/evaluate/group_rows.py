"""One row of numbers for each label group (generator, manipulation) of a dataset, and over all samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from effort_finetune.core.metrics import METRICS, binary_metrics

if TYPE_CHECKING:
    from effort_finetune.evaluate.dataset_results import DatasetResult
    from effort_finetune.evaluate.video import VideoScores


def group_rows(group_of: Mapping[str, str], videos: VideoScores, *, threshold: float) -> dict[str, Any]:
    """Measures each group of fakes against the dataset's reals, by video; a group of reals has its accuracy.

    Args:
        group_of: Label group of each video.
        videos: Video scores.
        threshold: Above it a video is called fake.

    Returns:
        By group: ``real`` and ``fake`` videos and every metric, with the reason of each null. Empty where
        the dataset has no more than one group a class.
    """
    groups = np.array([group_of[video] for video in videos.video])
    names = list(dict.fromkeys(groups.tolist()))
    classes = [{int(label) for label in videos.label[groups == name]} for name in names]
    if len(names) < 2 or all(sum(c in own for own in classes) < 2 for c in (0, 1)):
        return {}
    rows: dict[str, Any] = {}
    for name, own in zip(names, classes, strict=True):
        inside = groups == name
        if own == {1}:  # a generator without reals of its own name
            inside = inside | (videos.label == 0)
        rows[name] = _measured(videos.label[inside], videos.prob[inside], threshold)
    return rows


def over_samples(results: Sequence[DatasetResult], *, threshold: float) -> dict[str, Any]:
    """Measures all frames, and all videos, of all datasets as one.

    Args:
        results: The datasets of a run.
        threshold: Above it a frame or video is called fake.
    """
    done = [result for result in results if result.videos is not None]
    if not done:
        return {}
    pooled = {
        "frame": [(r.scores.label, r.scores.prob) for r in done],
        "video": [(r.videos.label, r.videos.prob) for r in done if r.videos is not None],
    }
    return {
        level: _measured(
            np.concatenate([label for label, _ in parts]),
            np.concatenate([prob for _, prob in parts]),
            threshold,
        )
        for level, parts in pooled.items()
    }


def _measured(label: np.ndarray, prob: np.ndarray, threshold: float) -> dict[str, Any]:
    found = binary_metrics(label, prob, threshold=threshold)
    return {
        "real": int(np.sum(label == 0)),
        "fake": int(np.sum(label == 1)),
        **{name: found[name] for name in METRICS},
        "null_reasons": {name: why for name, why in found["null_reasons"].items() if name in METRICS},
    }
