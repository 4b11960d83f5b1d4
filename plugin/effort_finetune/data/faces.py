"""Face crops as DeepfakeBench makes them: aligned by five points, cut with a margin, seen again in the crop.

Facts from the host's ``preprocessing/preprocess.py``: the crop is kept only if a face is found in it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from effort_finetune.data.face_finder import Face, FaceFinder

#: ArcFace's five-point template for a 96x112 crop; 8 px are added to x for a square of 112.
TEMPLATE = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
) + np.array([8.0, 0.0])
TEMPLATE_SIZE = 112
#: Which faces of a frame are cut: the largest one, all, or that of frames with one face alone.
Which = Literal["largest", "all", "single"]
WHICH: tuple[Which, ...] = ("largest", "all", "single")


@dataclass(frozen=True)
class Crop:
    """An aligned face.

    Attributes:
        image: ``uint8[size, size, 3]``, RGB.
        landmarks: All points of the finder's model, ``uint32[N, 2]`` as (x, y) in pixels of the crop; None
            where it has only the five.
        face: The face in the frame.
    """

    image: np.ndarray
    landmarks: np.ndarray | None
    face: Face


@dataclass(frozen=True)
class FrameCrops:
    """What became of one frame.

    Attributes:
        found: Faces in the frame.
        lost: Crops in which no face was found again.
        crops: The crops that are kept, of the largest face first.
    """

    found: int
    lost: int = 0
    crops: list[Crop] = field(default_factory=list)


def crop_faces(
    images: Sequence[np.ndarray],
    finder: FaceFinder,
    *,
    size: int = 256,
    margin: float = 1.3,
    which: Which = "largest",
) -> list[FrameCrops]:
    """Cuts the faces of some frames.

    Args:
        images: ``uint8[H, W, 3]`` each, RGB.
        finder: Looks for the faces, in the frames and again in the crops.
        size: Side of a crop in pixels.
        margin: Side of the crop over the side of the template.
        which: Faces that are cut.
    """
    frames = [_with_five_places(faces) for faces in finder.find(images)]
    chosen = [_choose(faces, which) for faces in frames]
    target = template(size, margin)
    cut = [
        [cv2.warpAffine(image, similarity(face.points, target), (size, size)) for face in faces]
        for image, faces in zip(images, chosen, strict=True)
    ]
    again = iter(finder.find([crop for crops in cut for crop in crops]))
    results = []
    for found, faces, crops in zip(frames, chosen, cut, strict=True):
        seen = [(crop, next(again), face) for crop, face in zip(crops, faces, strict=True)]
        kept = [Crop(crop, _landmarks(inside[0]), face) for crop, inside, face in seen if inside]
        results.append(FrameCrops(len(found), len(crops) - len(kept), kept))
    return results


def _with_five_places(faces: Sequence[Face]) -> list[Face]:
    """Five points at one place are no face, and no transform maps them."""
    return [face for face in faces if np.ptp(face.points, axis=0).any()]


def _choose(faces: list[Face], which: Which) -> list[Face]:
    if which == "single":
        return faces if len(faces) == 1 else []
    return faces if which == "all" else faces[:1]


def _landmarks(face: Face) -> np.ndarray | None:
    if face.landmarks is None:
        return None
    return np.clip(np.rint(face.landmarks), 0, None).astype(np.uint32)


def template(size: int, margin: float) -> np.ndarray:
    """Where the five points lie in a crop: ``float64[5, 2]``, (x, y) in pixels."""
    return (TEMPLATE * (size / TEMPLATE_SIZE) + size * (margin - 1) / 2) / margin


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that maps points onto others with the least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991, eq.
    40-42.

    Args:
        source: ``float[N, 2]``.
        target: ``float[N, 2]``.

    Returns:
        ``float64[2, 3]``, for ``cv2.warpAffine``.

    Raises:
        ValueError: All source points are one.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred, aim = source - source_mean, target - target_mean
    spread = np.square(centred).sum() / len(source)
    if spread == 0:
        raise ValueError("points at one place have no direction and no size")
    left, values, right = np.linalg.svd(aim.T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ np.diag(signs) @ right
    scale = (values * signs).sum() / spread
    shift = target_mean - scale * rotation @ source_mean
    return np.column_stack([scale * rotation, shift])
