"""The two drawings of an evidence: the probability over the frames, and what the calibration is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effort_finetune.evaluate.svg import Plot, colour, linear, share
from effort_finetune.predict.file_records import FaceRecord

MOST_FACES = 4


def timeline_svg(faces: Sequence[FaceRecord], threshold: float | None) -> str | None:
    """Draws each face's probability over the frames; None for fewer than two frames.

    Args:
        faces: The largest first.
        threshold: Of the raw probability, drawn where it is known.
    """
    numbers = [frame.frame for face in faces[:MOST_FACES] for frame in face.frames]
    if len(set(numbers)) < 2:
        return None
    plot = Plot(
        "Probability of fake over the frames",
        "one dot a frame, one line a face",
        linear("frame", min(numbers), max(numbers)),
        share("probability of fake"),
        height=150,
        width=760,
    )
    if threshold is not None:
        plot.line([min(numbers), max(numbers)], [threshold, threshold], "mark", f"threshold {threshold:.3g}")
    for number, face in enumerate(faces[:MOST_FACES]):
        at = [frame.frame for frame in face.frames]
        plot.line(
            at, [frame.prob for frame in face.frames], colour(number + 1), f"face {number + 1}", dots=True
        )
    return plot.svg()


def calibration_svg(reliability: Mapping[str, Any], value: float | None) -> str | None:
    """Draws the share of fakes against the probability on the videos that the calibration was fitted on.

    Args:
        reliability: ``raw`` and ``calibrated``, each a list of bins, as a calibration keeps them.
        value: The file's calibrated probability, drawn as an upright line.
    """
    found = [(name, _bins(reliability.get(name))) for name in ("raw", "calibrated")]
    lines = [(name, bins) for name, bins in found if bins]
    if not lines:
        return None
    plot = Plot(
        "Calibration on the validation videos",
        "on the dashed line a probability means what it says; large dots are many videos",
        share("mean probability of fake"),
        share("share of fakes"),
        height=190,
    )
    plot.diagonal()
    for number, (name, bins) in enumerate(lines):
        x, y, videos = (np.array([b[key] for b in bins], dtype=np.float64) for key in _KEYS)
        plot.line(x, y, colour(number), name)
        plot.dots(x, y, f"{colour(number)} faint", sizes=2 + 9 * np.sqrt(videos / videos.sum()))
    if value is not None:
        plot.upright(value, f"this file: {value:.3f}")
    return plot.svg()


_KEYS = ("probability", "share_of_fakes", "videos")


def _bins(found: Any) -> list[Mapping[str, float]]:
    """The bins of a file anyone may have written; none where they are no bins."""
    fits = isinstance(found, list) and all(
        isinstance(b, Mapping)
        and all(isinstance(b.get(key), (int, float)) and 0 <= b[key] < 1e9 for key in _KEYS)
        and b["videos"] > 0
        for b in found
    )
    return found if fits else []
