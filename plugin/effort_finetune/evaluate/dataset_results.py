"""What an evaluation knows about each dataset, and how one number is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from effort_finetune.core.errors import UserError, did_you_mean
from effort_finetune.core.metrics import LOWER_IS_BETTER, METRICS

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset
    from effort_finetune.evaluate.predictions import Scores
    from effort_finetune.evaluate.video import VideoScores


@dataclass(frozen=True)
class DatasetResult:
    """One dataset: its block of the results file and the scores behind it.

    Attributes:
        name: Data set.
        block: The JSON block (``schema.json``, ``$defs/dataset``).
        dataset: The frames; ``dataset.rows[scores.index[i]]`` is the i-th scored frame. Imported
            scores have none.
        scores: Frame scores.
        videos: Video scores; ``None`` when the dataset failed before they were computed.
    """

    name: str
    block: dict[str, Any]
    dataset: FrameDataset = field(repr=False)
    scores: Scores = field(repr=False)
    videos: VideoScores | None = field(repr=False)

    def metric(self, name: str) -> float | None:
        """Returns one number, e.g. ``video_auc``; ``None`` when it could not be computed.

        Raises:
            UserError: If there is no such metric.
        """
        level, metric = parse_metric(name)
        if metric == "loss":
            return self.block["loss"] and self.block["loss"]["overall"]
        return self.block[level] and self.block[level][metric]


@dataclass(frozen=True)
class DatasetResults:
    """The datasets of one evaluation, in the order asked for."""

    datasets: Mapping[str, DatasetResult]

    def metric(self, name: str) -> float | None:
        """Returns the mean of a metric over the datasets, ``None`` as soon as one of them has none.

        Raises:
            UserError: If there is no such metric.
        """
        parse_metric(name)
        values = [result.metric(name) for result in self.datasets.values()]
        present = [value for value in values if value is not None]
        return float(np.mean(present)) if present and len(present) == len(values) else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the ``datasets`` block of the results file."""
        return {name: result.block for name, result in self.datasets.items()}

    def average(self, asked: Sequence[str] = ()) -> dict[str, Any]:
        """Returns the macro average over the datasets, per level; see :func:`average`.

        Args:
            asked: The datasets that should be there; a run that failed lacks some.
        """
        lacking = {name: {"frame": None, "video": None} for name in asked}
        return average({**lacking, **self.to_dict()})


def parse_metric(name: str, *, where: str = "metric_scoring") -> tuple[str, str]:
    """Splits a metric's name into level and metric.

    ``auc`` and ``frame_auc`` are the frames', ``video_auc`` is the videos'; ``loss`` is the mean
    cross-entropy of the frames.

    Args:
        name: The metric.
        where: The setting or flag it was given by, for the error.

    Raises:
        UserError: If there is no such metric; the message names near ones.
    """
    if name in ("loss", "frame_loss"):
        return "frame", "loss"
    level, _, metric = name.partition("_")
    if level not in ("frame", "video"):
        level, metric = "frame", name
    if metric not in METRICS:
        names = [prefix + m for m in METRICS for prefix in ("", "video_")] + ["loss"]
        raise UserError(
            where,
            got=repr(name),
            expected="loss, one of " + ", ".join(METRICS) + ", or one of these after video_",
            next_step=did_you_mean(name, names),
        )
    return level, metric


def higher_is_better(name: str) -> bool:
    """Returns whether a larger value of the metric is the better one.

    Raises:
        UserError: If there is no such metric.
    """
    return parse_metric(name)[1] not in LOWER_IS_BETTER


def average(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the unweighted mean of each metric over the datasets.

    A mean over fewer datasets than were asked for would not be comparable, so a metric that one data
    set lacks is ``None``, with the datasets that lack it as the reason.

    Args:
        blocks: The ``datasets`` block of a results file.
    """
    averages: dict[str, Any] = {}
    for level in ("frame", "video"):
        values: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for metric in METRICS:
            column = {name: (block[level] or {}).get(metric) for name, block in blocks.items()}
            lacking = [name for name, value in column.items() if value is None]
            values[metric] = None if lacking or not column else float(np.mean(list(column.values())))
            if values[metric] is None:
                reasons[metric] = f"no value for {', '.join(lacking)}" if lacking else "no dataset"
        averages[level] = {**values, "null_reasons": reasons}
    return averages
