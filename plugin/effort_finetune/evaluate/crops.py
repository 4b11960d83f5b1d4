"""The videos a reader should see: the worst mistakes and some of what was right, with a face of each."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from effort_finetune.core.escaping import visible
from effort_finetune.evaluate.report_videos import Videos, videos_of

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset
    from effort_finetune.evaluate.score_file import ScoreFile

PER_ROW = 10
SIDE = 96  # pixels; enough to see a blend boundary, small enough to embed dozens


@dataclass(frozen=True)
class Crop:
    """One video.

    Attributes:
        video: Its identity without the dataset.
        prob: Its score.
        source: The frame that is shown, the one that speaks most for the video's verdict.
        uri: A PNG of that frame as a ``data:`` URI; ``None`` where there are no pictures.
    """

    video: str
    prob: float
    source: str
    uri: str | None


@dataclass(frozen=True)
class CropRow:
    """Videos of one kind; ``wrong`` marks mistakes, ``more`` of which are not shown."""

    title: str
    wrong: bool
    more: int
    crops: list[Crop]


def crop_rows(
    dataset: str, scores: ScoreFile, frames: FrameDataset | None, *, threshold: float
) -> list[CropRow]:
    """Picks videos, each once, and encodes a crop of each.

    Mistakes are the most confident ones by the video's score; what was right is spread evenly over its
    scores, so that easy and borderline cases both show, and is left out where there are no pictures.

    Args:
        dataset: Its name, left out of the videos' own.
        scores: Frame scores of the dataset.
        frames: The frames, to read the pixels; ``None`` where they are not at hand.
        threshold: What separates right from wrong.

    Returns:
        Rows of at most :data:`PER_ROW` videos; a row without videos is left out.
    """
    videos = videos_of(scores)
    index = {} if frames is None else {row.path: i for i, row in enumerate(frames.rows)}
    wrong, fake = videos.wrong(threshold), videos.label == 1
    order = np.array(videos.worst_first(threshold), dtype=np.int64)
    rows = []
    for title, is_wrong, mask in (
        ("Fakes missed (called real)", True, fake & wrong),
        ("Reals called fake", True, ~fake & wrong),
        ("Fakes found", False, fake & ~wrong),
        ("Reals passed", False, ~fake & ~wrong),
    ):
        if not is_wrong and frames is None:
            continue
        of_kind = order[mask[order]]
        chosen = of_kind[:PER_ROW] if is_wrong else _spread(of_kind)
        crops = [
            _crop(dataset, videos, scores, frames, index, int(i), called=bool(fake[i]) != is_wrong)
            for i in chosen
        ]
        if crops:
            rows.append(CropRow(title, is_wrong, len(of_kind) - len(crops) if is_wrong else 0, crops))
    return rows


def _spread(order: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(order) <= PER_ROW:
        return order
    return order[np.linspace(0, len(order) - 1, PER_ROW).round().astype(int)]


def _crop(
    dataset: str, videos: Videos, scores: ScoreFile, frames: FrameDataset | None, index: Mapping[str, int],
    i: int, *, called: bool,
) -> Crop:  # fmt: skip
    name = videos.names[i]
    own = videos.frames[name]
    shown = (max if called else min)(own, key=lambda k: scores.prob[k])
    source = scores.frame[shown]
    uri = None if frames is None else _uri(frames, index, source)
    return Crop(
        visible(name.removeprefix(f"{dataset}/")), float(videos.prob[i]),
        visible(source.replace("\\", "/"), limit=None), uri,
    )  # fmt: skip


def _uri(frames: FrameDataset, index: Mapping[str, int], path: str) -> str | None:
    row = index.get(path)
    image = None if row is None else frames.load_rgb(row)
    if image is None:
        return None
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    _, png = cv2.imencode(".png", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")
