"""One row of numbers for each label group (generator, manipulation) of a dataset, and over all samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from effort_finetune.core.escaping import visible
from effort_finetune.core.metrics import METRICS, binary_metrics
from effort_finetune.evaluate.intervals import auc_interval, clopper_pearson

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
        By group, unseen characters of its name escaped: ``real`` and ``fake`` videos, every metric with the
        reason of each null, and in ``ci95`` the 95 % intervals of AUC (DeLong) and ACC (exact). Empty where
        no class has more than one group.
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
        label, prob = videos.label[inside], videos.prob[inside]
        row = rows[visible(name, limit=None)] = _measured(label, prob, threshold)
        # A video is one sample here, so that both intervals need no resamples.
        acc = row["acc"]
        row["ci95"] = {
            "auc": auc_interval(row["auc"], label, prob),
            "acc": None if acc is None else list(clopper_pearson(acc, len(label))),
        }
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
