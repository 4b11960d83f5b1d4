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
    frames, fakes, prob = grouped(video_of_frame, scores.label, scores.prob, len(names))
    mixed = np.flatnonzero((fakes > 0) & (fakes < frames))
    if len(mixed):
        first = int(mixed[0])
        raise UserError(
            f"video {names[first]}",
            got=f"{fakes[first]} fake and {frames[first] - fakes[first]} real frames",
            expected="one label a video",
            next_step="correct the labels in the dataset's JSON",
        )
    return VideoScores(names, (fakes > 0).astype(np.int64), prob, frames, video_of_frame)


def grouped(
    video: NDArray[np.int64], label: NDArray[np.int64], value: NDArray[np.float64], videos: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Sums frames up to their videos, whichever rule numbered the videos.

    Args:
        video: ``[N]``, the video of each frame, from 0.
        label: ``[N]``, 0 real, 1 fake.
        value: ``[N]``, what is averaged.
        videos: Number of videos ``V``.

    Returns:
        Frames of each video, fakes among them and the mean value, ``[V]`` each; 0 where a video has no frame.
    """
    frames = np.bincount(video, minlength=videos).astype(np.int64)
    fakes = np.bincount(video, weights=label, minlength=videos).astype(np.int64)
    mean = np.bincount(video, weights=value, minlength=videos) / np.maximum(frames, 1)
    return frames, fakes, mean
