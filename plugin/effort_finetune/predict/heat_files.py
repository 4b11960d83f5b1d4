"""Heat maps of a file's faces as files: a picture to look at, and its numbers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from effort_finetune.core.files import atomic_write, ensure_writable_dir
from effort_finetune.model.heat_map import METHODS, heat_maps, peak
from effort_finetune.model.pointing_figures import ChosenMap, chosen_map
from effort_finetune.predict.file_crops import Cut, FileCrops
from effort_finetune.predict.file_records import FaceRecord, FileRecord, HeatRecord
from effort_finetune.predict.prediction import Predictor

MOST_FACES = 4  # of a file, the largest
STRENGTH = 0.65  # of the colour where the map is 1
_NAME = 40


class HeatMapper:
    """Makes the maps of a predictor's crops by the method that is shown for its tower."""

    def __init__(self, predictor: Predictor) -> None:
        self.model = predictor.checkpoint
        self.chosen: ChosenMap = chosen_map(self.model)
        self._inputs = predictor.inputs

    def maps(self, images: list[np.ndarray]) -> np.ndarray | None:
        """Returns ``float32[N, side, side]``, 0 to 1; None where no map of this tower says anything.

        Args:
            images: ``uint8[side, side, 3]``, RGB, as the model is given them.
        """
        if self.chosen.method is None or not images:
            return None
        found = [
            heat_maps(self.model, self._inputs([image]), self.chosen.method)
            for image in images  # one by one: a pass that keeps all attention of a large tower is large
        ]
        return torch.cat(found).numpy()

    def line(self) -> str:
        """What a user should know of the maps."""
        if self.chosen.method is None:
            return f"heat maps are not shown: {self.chosen.figure}"
        return f"heat maps by {METHODS[self.chosen.method].title}: {self.chosen.figure}"


class HeatFiles:
    """Writes maps into a folder.

    Args:
        mapper: Makes them.
        folder: Made where it is not there.

    Raises:
        UserError: The folder cannot be made.
    """

    def __init__(self, mapper: HeatMapper, folder: Path) -> None:
        self.mapper, self.folder = mapper, folder
        ensure_writable_dir(folder, what="folder of heat maps", flag="--heatmap")

    def write(self, found: FileCrops, record: FileRecord) -> FileRecord:
        """Writes the most suspicious frame of each face and returns the record that names the files."""
        shown = list(most_suspicious(found, record))
        maps = self.mapper.maps([cut.image for _, cut in shown])
        if maps is None:
            return record
        written = []
        for (number, cut), heat in zip(shown, maps, strict=True):
            stem = f"{file_stem(record)}-face{number + 1}-frame{cut.frame}"
            picture, numbers = self.folder / f"{stem}.png", self.folder / f"{stem}.npy"
            write_png(picture, overlay(cut.image, heat))
            atomic_write(numbers, partial(_save, heat=heat))
            written.append(self._record(number, cut, heat, picture, numbers))
        return replace(record, heat_maps=tuple(written))

    def _record(self, face: int, cut: Cut, heat: np.ndarray, picture: Path, numbers: Path) -> HeatRecord:
        chosen = self.mapper.chosen
        assert chosen.method is not None, "a map was made"
        return HeatRecord(
            face, cut.frame, chosen.method, chosen.figure, peak_of(heat), str(picture), str(numbers)
        )


def most_suspicious(found: FileCrops, record: FileRecord) -> Iterator[tuple[int, Cut]]:
    """Yields number and crop of each of the largest faces, of the frame with its highest probability."""
    for number, face in enumerate(record.faces[:MOST_FACES]):
        cuts = cuts_of(found, face)
        frame = int(np.argmax([frame.prob for frame in face.frames]))
        yield number, cuts[frame]


def cuts_of(found: FileCrops, face: FaceRecord) -> list[Cut]:
    """Returns the crops of a face, in the order of its frames."""
    by_place = {(cut.frame, _box(cut)): cut for cut in found.cuts}
    return [by_place[frame.frame, frame.box] for frame in face.frames]


def _box(cut: Cut) -> tuple[float, ...] | None:
    return None if cut.face is None else tuple(float(edge) for edge in cut.face.box)


def peak_of(heat: np.ndarray) -> tuple[float, float] | None:
    """Returns where a map is largest, right and down, as shares of its sides."""
    place = peak(torch.from_numpy(heat))
    if place is None:
        return None
    row, column = place
    return (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays a map over its crop.

    Args:
        image: ``uint8[side, side, 3]``, RGB.
        heat: ``float32[side, side]``, 0 to 1.

    Returns:
        ``uint8[side, side, 3]``, RGB: the crop where the map is 0, more colour the larger it is.
    """
    colour = cv2.applyColorMap(np.round(heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    weight = STRENGTH * heat[..., None]
    return np.round(image * (1 - weight) + colour * weight).astype(np.uint8)


def file_stem(record: FileRecord) -> str:
    """Returns a name for files about a file: the start of its own, made harmless, and of its hash.

    Of a file that cannot be read the hash is that of its path.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(record.file).stem)[:_NAME].strip("._") or "file"
    told_apart = record.sha256 or hashlib.sha256(record.file.encode(errors="replace")).hexdigest()
    return f"{name}-{told_apart[:8]}"


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes ``uint8[H, W, 3]``, RGB."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    assert done, "OpenCV encodes every picture of three channels"
    atomic_write(path, lambda temporary: temporary.write_bytes(data.tobytes()))


def _save(path: Path, heat: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, heat)
