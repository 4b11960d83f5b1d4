"""The crops of one file, as the model is given them: its own and those of each delivery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.core.files import sha256_file
from effort_finetune.core.interpolation import Interpolation
from effort_finetune.data.deliveries import DELIVERIES, delivered
from effort_finetune.data.face_finder import Face
from effort_finetune.data.faces import crop_faces
from effort_finetune.data.fit import Fit, fitted
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.predict.chosen_faces import ChosenFaces
from effort_finetune.predict.file_frames import FileFrames

BATCH = 4  # frames that a finder is given at once: of 4K, 100 MB
MOST_FACES = 16  # of one frame, the largest
DELIVERED_FRAMES = 4  # of a video: each is cut again for every delivery
AS_IS = ""


@dataclass(frozen=True)
class Cut:
    """One crop.

    Attributes:
        frame: Number of the frame.
        face: Where the face is; None where the whole picture was taken.
        image: ``uint8[resolution, resolution, 3]``, RGB.
    """

    frame: int
    face: Face | None
    image: np.ndarray


@dataclass
class FileCrops:
    """What one file gave, before any score.

    Attributes:
        file: Its path.
        sha256: Of its bytes; None where they cannot be read.
        kind: ``picture`` or ``video``; None where it is neither.
        error: Why it gave nothing; None where it was read.
        frames: Frames that were looked at.
        without_face: Of these, the ones without a face.
        undecodable: Frames without a picture.
        cuts: All crops, in order of time, the largest of a frame first.
        delivered: By delivery, the largest crop of each delivered frame.
        delivered_frames: Numbers of the frames that were delivered.
        seconds: Of a processor, that reading and cutting took.
    """

    file: str
    sha256: str | None = None
    kind: str | None = None
    error: str | None = None
    frames: int = 0
    without_face: int = 0
    undecodable: int = 0
    cuts: list[Cut] = field(default_factory=list)
    delivered: dict[str, list[Cut]] = field(default_factory=dict)
    delivered_frames: list[int] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Cutter:
    """How files are cut in one run.

    Attributes:
        faces: The recipe.
        resolution: Side of the model's input.
        frames: Frames of a video at most, evenly spaced.
        interpolation: How a crop is brought to that side.
        deliveries: Names of deliveries that are cut, too.
        seed: Of what deliveries draw.
        watch: Called with file, number and ``uint8[H, W, 3]`` (RGB) of each frame that is looked at.
    """

    faces: ChosenFaces
    resolution: int
    frames: int
    interpolation: Interpolation = "bicubic"
    deliveries: tuple[str, ...] = ()
    seed: int = 0
    watch: Callable[[str, int, np.ndarray], None] | None = None

    def cut(self, file: str) -> FileCrops:
        """Reads one file; whatever is wrong with it stands in the result."""
        found = FileCrops(file)
        try:
            reader = FileFrames(file, count=self.frames)
            batch: list[tuple[int, np.ndarray]] = []
            for number, frame in reader:
                found.kind = reader.kind
                found.frames += 1
                if isinstance(frame, str):
                    found.undecodable += 1
                    continue
                if self.watch is not None:
                    self.watch(file, number, frame)
                batch.append((number, frame))
                if len(batch) == BATCH:
                    self._take(batch, found)
                    batch = []
            self._take(batch, found)
            if found.undecodable == found.frames:
                raise Unreadable("no frame can be decoded")
            found.sha256 = sha256_file(Path(file))
        except Unreadable as error:
            found.error = str(error)
        except (OSError, MemoryError, cv2.error) as error:  # OpenCV refuses some shapes in its own words
            words = " ".join(str(getattr(error, "strerror", None) or error).split())
            found.error = words[:200] or type(error).__name__
        if found.error is not None:
            found.cuts, found.delivered = [], {}
            found.sha256 = hash_or_none(file)
        return found

    def _sized(self, image: np.ndarray, fit: Fit | None) -> np.ndarray:
        return fitted(image, fit, self.resolution, interpolation=self.interpolation)

    def _take(self, batch: Sequence[tuple[int, np.ndarray]], found: FileCrops) -> None:
        if not batch:
            return
        for (number, _), cuts in zip(batch, self._cuts([i for _, i in batch], which="all"), strict=True):
            found.without_face += not cuts
            found.cuts += [Cut(number, face, image) for face, image in cuts[:MOST_FACES]]
        if self.deliveries:
            self._deliver(batch, found)

    def _deliver(self, batch: Sequence[tuple[int, np.ndarray]], found: FileCrops) -> None:
        every = max(1, self.frames // DELIVERED_FRAMES) if found.kind == "video" else 1
        seen = {cut.frame for cut in found.cuts}
        first = found.frames - found.undecodable - len(batch)
        for place, (number, image) in enumerate(batch, start=first):
            if place % every or len(found.delivered_frames) >= DELIVERED_FRAMES or number not in seen:
                continue
            found.delivered_frames.append(number)
            send = partial(delivered, seed=self.seed, item=found.file, of_video=found.kind == "video")
            for name in self.deliveries:
                arrived = send(image, name)
                if arrived is None:
                    continue
                cuts = self._cuts([arrived], which="largest")[0]
                kept = found.delivered.setdefault(name, [])
                kept += [Cut(number, face, crop) for face, crop in cuts]

    def _cuts(self, images: list[np.ndarray], *, which: str) -> list[list[tuple[Face | None, np.ndarray]]]:
        if self.faces.finder is None:
            return [[(None, self._sized(image, self.faces.fit))] for image in images]
        crops = crop_faces(
            images,
            self.faces.finder.make(),
            size=self.faces.size,
            margin=self.faces.margin,
            which="all" if which == "all" else "largest",
        )
        return [[(crop.face, self._sized(crop.image, None)) for crop in frame.crops] for frame in crops]


def hash_or_none(file: str) -> str | None:
    """Returns the SHA-256 of a file's bytes; None where they cannot be read."""
    place = Path(file)
    try:
        return sha256_file(place) if place.is_file() else None
    except (OSError, ValueError):
        return None


def all_deliveries() -> tuple[str, ...]:
    """Names of all deliveries."""
    return tuple(DELIVERIES)
