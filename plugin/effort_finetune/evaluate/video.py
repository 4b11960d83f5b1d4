"""Frames into videos: one score a video, the mean probability of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from effort_finetune.core.errors import UserError

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameRow
    from effort_finetune.evaluate.predictions import Scores


@dataclass(frozen=True)
class VideoScores:
    """The videos of a dataset that have at least one scored frame, in order of first appearance.

    Attributes:
        video: ``V`` identifiers, ``FrameRow.video`` (dataset, label group, compression, video).
        label: ``int64[V]``, 0 real, 1 fake.
        prob: ``float64[V]``, mean of the frames' probabilities of fake.
        frames: ``int64[V]``, number of frames that were scored.
        video_of_frame: ``int64[N]``, the video of each scored frame, aligned with the frame scores.
    """

    video: tuple[str, ...]
    label: NDArray[np.int64]
    prob: NDArray[np.float64]
    frames: NDArray[np.int64]
    video_of_frame: NDArray[np.int64]


def video_scores(rows: Sequence[FrameRow], scores: Scores) -> VideoScores:
    """Groups frame scores by the video identity of the JSON index, not by the folder's name.

    A folder's name is not unique: FF++ uses ``000_003`` in all four manipulations, and grouping by
    it merges them (DeepfakeBench's ``get_test_metrics``; its value is kept under ``host_metrics``).

    Args:
        rows: All frames of the dataset; ``scores.index`` points into them.
        scores: What was scored.

    Raises:
        UserError: If one video holds real and fake frames.
    """
    number: dict[str, int] = {}
    video_of_frame = np.empty(len(scores.index), dtype=np.int64)
    for position, index in enumerate(scores.index.tolist()):
        video_of_frame[position] = number.setdefault(rows[index].video, len(number))
    names = tuple(number)
    frames = np.bincount(video_of_frame, minlength=len(names)).astype(np.int64)
    fakes = np.bincount(video_of_frame, weights=scores.label, minlength=len(names)).astype(np.int64)
    mixed = np.flatnonzero((fakes > 0) & (fakes < frames))
    if len(mixed):
        first = int(mixed[0])
        raise UserError(
            f"video {names[first]}",
            got=f"{fakes[first]} fake and {frames[first] - fakes[first]} real frames",
            expected="one label a video",
            next_step="correct the labels in the dataset's JSON",
        )
    prob = np.bincount(video_of_frame, weights=scores.prob, minlength=len(names)) / np.maximum(frames, 1)
    return VideoScores(names, (fakes > 0).astype(np.int64), prob, frames, video_of_frame)
