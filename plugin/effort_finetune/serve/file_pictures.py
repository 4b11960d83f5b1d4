"""Small pictures of a file, made while it is judged: what the page shows when the file is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.predict.file_crops import FileCrops
from effort_finetune.predict.file_records import FaceRecord, FileRecord
from effort_finetune.predict.heat_files import HeatMapper, cuts_of
from effort_finetune.serve.page_row import CropPicture, RowPictures
from effort_finetune.serve.small_frames import SmallFrame, jpeg

MOST_FACES = 6
#: Crops of a file that are looked into for where the model looked.
MOST_HEAT = 4


def write_pictures(
    folder: Path,
    crops: FileCrops,
    record: FileRecord,
    frames: Sequence[SmallFrame],
    heat: HeatMapper | None,
) -> RowPictures:
    """Writes the pictures of a file.

    Args:
        folder: Where they go; created.
        crops: What was scored.
        record: What came out.
        frames: The frames that were looked at.
        heat: Makes maps of where the model looked; None leaves them out.
    """
    if not frames:
        return RowPictures()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = _suspicious(record.faces[0]) if record.faces else frames[0].number
    shown = next((frame for frame in frames if frame.number == chosen), frames[0])
    (folder / "preview.jpg").write_bytes(shown.jpeg)
    found = list(_crops(crops, record))
    for picture, image in found:
        (folder / picture.image).write_bytes(jpeg(image))
    pictures = [picture for picture, _ in found]
    if heat is not None and found:
        looked = _looked_into(pictures)
        maps = heat.maps([found[i][1] for i in looked])
        for i, values in zip(looked, maps, strict=True) if maps is not None else ():
            name = f"{Path(pictures[i].image).stem}_heat.png"
            (folder / name).write_bytes(_overlay(values))
            pictures[i] = replace(pictures[i], heat=name)
    return RowPictures("preview.jpg", shown.number, shown.width, shown.height, tuple(pictures))


def _looked_into(pictures: Sequence[CropPicture]) -> list[int]:
    """Places of the crops that get a map: the most suspicious of each face, then of all."""
    order = sorted(range(len(pictures)), key=lambda i: -pictures[i].prob)
    leading: dict[int, int] = {}
    for i in order:
        leading.setdefault(pictures[i].face, i)
    first = list(leading.values())
    return sorted((first + [i for i in order if i not in first])[:MOST_HEAT])


def _crops(crops: FileCrops, record: FileRecord) -> Iterator[tuple[CropPicture, np.ndarray]]:
    for number, face in enumerate(record.faces[:MOST_FACES]):
        most = _suspicious(face)
        for frame, cut in zip(face.frames, cuts_of(crops, face), strict=True):
            if number == 0 or frame.frame == most:
                name = f"face{number}_frame{frame.frame}.jpg"
                yield CropPicture(number, frame.frame, frame.prob, name), cut.image


def _suspicious(face: FaceRecord) -> int:
    """The frame in which a face looks most like a fake; the first of equals."""
    return max(face.frames, key=lambda frame: frame.prob).frame


def _overlay(values: np.ndarray) -> bytes:
    """A map as a PNG that lies over its crop: the stronger, the less of the crop is seen through it."""
    level = np.clip(values * 255, 0, 255).astype(np.uint8)
    colour = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)
    alpha = np.clip(values * 1.4, 0, 0.85) * 255
    return cv2.imencode(".png", np.dstack([colour, alpha.astype(np.uint8)]))[1].tobytes()
