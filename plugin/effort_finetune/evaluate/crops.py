"""Face crops a reader should see: the worst mistakes and some of what was right."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset
    from effort_finetune.evaluate.score_file import ScoreFile

PER_ROW = 10
SIDE = 96  # pixels; enough to see a blend boundary, small enough to embed dozens


@dataclass(frozen=True)
class Crop:
    """One picture: a PNG as a ``data:`` URI, the probability of fake, and where it comes from."""

    uri: str
    prob: float
    source: str


@dataclass(frozen=True)
class CropRow:
    """Crops of one kind; ``wrong`` marks mistakes."""

    title: str
    wrong: bool
    crops: list[Crop]


def crop_rows(scores: ScoreFile, frames: FrameDataset, *, threshold: float) -> list[CropRow]:
    """Picks and encodes crops, one a video.

    Mistakes are the most confident ones; what was right is spread evenly over its scores, so that easy
    and borderline cases both show.

    Args:
        scores: Frame scores of a dataset.
        frames: The frames, to read the pixels.
        threshold: What separates right from wrong.

    Returns:
        Rows of at most :data:`PER_ROW` crops; a row without crops is left out.
    """
    index = {row.path: i for i, row in enumerate(frames.rows)}
    called = scores.prob > threshold
    fake = scores.label == 1
    groups = [
        ("Fakes missed (called real)", True, _worst(scores, fake & ~called, ascending=True)),
        ("Reals called fake", True, _worst(scores, ~fake & called, ascending=False)),
        ("Fakes found", False, _spread(scores, fake & called)),
        ("Reals passed", False, _spread(scores, ~fake & ~called)),
    ]
    rows = []
    for title, wrong, chosen in groups:
        crops = [_crop(scores, frames, index, i) for i in chosen]
        if present := [crop for crop in crops if crop is not None]:
            rows.append(CropRow(title, wrong, present))
    return rows


def _worst(scores: ScoreFile, mask: NDArray[np.bool_], *, ascending: bool) -> list[int]:
    return _one_a_video(scores, mask, ascending=ascending)[:PER_ROW]


def _spread(scores: ScoreFile, mask: NDArray[np.bool_]) -> list[int]:
    candidates = _one_a_video(scores, mask, ascending=True)
    if len(candidates) <= PER_ROW:
        return candidates
    return [candidates[i] for i in np.linspace(0, len(candidates) - 1, PER_ROW).round().astype(int)]


def _one_a_video(scores: ScoreFile, mask: NDArray[np.bool_], *, ascending: bool) -> list[int]:
    order = np.flatnonzero(mask)
    order = order[np.argsort(scores.prob[order] * (1 if ascending else -1), kind="stable")]
    first: dict[str, int] = {}
    for i in order.tolist():
        first.setdefault(scores.video[i], i)
    return list(first.values())


def _crop(scores: ScoreFile, frames: FrameDataset, index: Mapping[str, int], i: int) -> Crop | None:
    row = index.get(scores.frame[i])
    image = None if row is None else frames.load_rgb(row)
    if image is None:
        return None
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    _, png = cv2.imencode(".png", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    uri = "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")
    return Crop(uri, float(scores.prob[i]), scores.frame[i].replace("\\", "/"))
