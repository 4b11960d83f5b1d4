"""Face crops as DeepfakeBench makes them: found, aligned by five points, cut with a margin.

Facts from the host's ``preprocessing/preprocess.py``: dlib's frontal detector on the image upsampled once,
the largest face, an 81-point predictor; the crop is kept only if a face is found in it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.core.errors import UserError

#: Eyes, nose tip and mouth in the order of the template, as numbers of the 81 points (from 0).
FIVE_POINTS = (37, 44, 30, 49, 55)
#: ArcFace's five-point template for a 96x112 crop; 8 px are added to x for a square of 112.
TEMPLATE = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
) + np.array([8.0, 0.0])
TEMPLATE_SIZE = 112

#: ``uint8[H, W, 3]`` RGB to the 81 points of the largest face, ``float[81, 2]`` as (x, y), or None.
LandmarkFinder = Callable[[np.ndarray], np.ndarray | None]


@dataclass(frozen=True)
class Crop:
    """An aligned face.

    Attributes:
        image: ``uint8[size, size, 3]``, RGB.
        landmarks: ``uint32[81, 2]``, (x, y) in pixels of the crop.
    """

    image: np.ndarray
    landmarks: np.ndarray


class NoFace(Exception):
    """No face: ``in_frame`` in the frame, or ``in_crop`` none found again in the crop."""


def dlib_finder(predictor: Path) -> LandmarkFinder:
    """Finds the largest face's landmarks with dlib.

    Args:
        predictor: The 81-point model, ``shape_predictor_81_face_landmarks.dat``.

    Raises:
        UserError: dlib or the model file is missing, or the file is no 81-point model.
    """
    try:
        import dlib
    except ImportError as error:
        raise UserError(
            "face crops need dlib",
            got=str(error),
            expected="the extra 'faces'",
            next_step="pip install 'effort-finetune[faces]', or use --faces cropped for crops made elsewhere",
        ) from error
    if not predictor.is_file():
        raise UserError(
            "81-point landmark model not found",
            got=str(predictor),
            expected="shape_predictor_81_face_landmarks.dat",
            next_step="fetch it as the host's dlib_tools/readme.md says; give it by --predictor",
        )
    try:
        shape = dlib.shape_predictor(str(predictor))
    except RuntimeError as error:
        raise UserError(
            "landmark model cannot be read", got=f"{predictor}: {error}", expected="a dlib shape predictor"
        ) from error
    blank = np.zeros((8, 8, 3), np.uint8)
    points = shape(blank, dlib.rectangle(0, 0, 7, 7)).num_parts
    if points != 81:
        raise UserError(
            "landmark model has the wrong points", got=points, expected="81",
            next_step="use shape_predictor_81_face_landmarks.dat",
        )  # fmt: skip
    detector = dlib.get_frontal_face_detector()

    def find(image: np.ndarray) -> np.ndarray | None:
        faces = detector(image, 1)
        if not faces:
            return None
        largest = max(faces, key=lambda face: face.width() * face.height())
        parts = shape(image, largest).parts()
        return np.array([[part.x, part.y] for part in parts], dtype=np.float64)

    return find


def crop_face(image: np.ndarray, find: LandmarkFinder, *, size: int = 256, margin: float = 1.3) -> Crop:
    """Cuts the largest face of a frame.

    Args:
        image: ``uint8[H, W, 3]``, RGB.
        find: Landmark finder.
        size: Side of the crop in pixels.
        margin: Side of the crop over the side of the template.

    Raises:
        NoFace: In the frame, or again in the crop.
    """
    points = find(image)
    if points is None:
        raise NoFace("in_frame")
    matrix = similarity(points[list(FIVE_POINTS)], template(size, margin))
    crop = cv2.warpAffine(image, matrix, (size, size))
    again = find(crop)
    if again is None:
        raise NoFace("in_crop")
    return Crop(crop, np.clip(np.rint(again), 0, None).astype(np.uint32))


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
        NoFace: All source points are one.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred, aim = source - source_mean, target - target_mean
    spread = np.square(centred).sum() / len(source)
    if spread == 0:
        raise NoFace("in_frame")
    left, values, right = np.linalg.svd(aim.T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ np.diag(signs) @ right
    scale = (values * signs).sum() / spread
    shift = target_mean - scale * rotation @ source_mean
    return np.column_stack([scale * rotation, shift])
