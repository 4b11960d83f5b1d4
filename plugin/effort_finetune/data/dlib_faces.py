"""dlib's frontal detector with the 81- or the 68-point model: DeepfakeBench's way to find a face.

Facts from the host's ``preprocessing/preprocess.py``: the picture upsampled once, the largest face, points
37, 44, 30, 49 and 55 of the 81-point model. The first 68 points of that model are those of the 68-point one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import sha256_file
from effort_finetune.data.face_finder import Face, largest_first

#: Eyes, nose tip and mouth in the order of the template, as numbers of the 81 or 68 points (from 0).
FIVE_POINTS = (37, 44, 30, 49, 55)
UPSAMPLED = 1  # times
FILE_81 = "shape_predictor_81_face_landmarks.dat"
FILE_68 = "shape_predictor_68_face_landmarks.dat"
PACKAGE_68 = "face_recognition_models"
INSTALL = "pip install dlib-bin face-recognition-models"
LICENCES = {
    68: "dlib: Boost; 68-point model: CC0, but trained on 300-W, which is not for commercial use",
    81: "dlib: Boost; 81-point model: as the place says that it was taken from",
}


def installed() -> bool:
    """Tells whether dlib can be imported, without importing it."""
    return importlib.util.find_spec("dlib") is not None


def packaged_68() -> Path | None:
    """The 68-point file of face-recognition-models, which is not imported: it needs pkg_resources, which
    setuptools no longer has."""
    found = importlib.util.find_spec(PACKAGE_68)
    folders = list(found.submodule_search_locations or []) if found is not None else []
    path = Path(folders[0]) / "models" / FILE_68 if folders else None
    return path if path is not None and path.is_file() else None


class DlibFinder:
    """Finds faces of 40 pixels and more that look at the camera.

    Args:
        predictor: A landmark model of 81 or 68 points.

    Raises:
        UserError: dlib or the file is missing, or the file is no such model.
    """

    def __init__(self, predictor: Path) -> None:
        try:
            import dlib
        except ImportError as error:
            raise UserError("dlib is not installed", got=str(error), next_step=INSTALL) from error
        if not predictor.is_file():
            raise UserError(
                "landmark model not found", got=str(predictor), expected=f"{FILE_81} or {FILE_68}",
                next_step=f"{INSTALL} brings the second one; or give a file by --predictor",
            )  # fmt: skip
        try:
            self._shape = dlib.shape_predictor(str(predictor))
        except RuntimeError as error:
            raise UserError(
                "landmark model cannot be read",
                got=f"{predictor}: {error}",
                expected="a dlib shape predictor",
            ) from error
        blank = np.zeros((8, 8, 3), np.uint8)
        points = self._shape(blank, dlib.rectangle(0, 0, 7, 7)).num_parts
        if points not in LICENCES:
            raise UserError(
                "landmark model has the wrong points", got=points, expected="81 or 68",
                next_step=f"use {FILE_81} or {FILE_68}",
            )  # fmt: skip
        self.name = f"dlib{points}"
        self.licence = LICENCES[points]
        self.model_hash = sha256_file(predictor)
        self._detector = dlib.get_frontal_face_detector()

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """See :meth:`FaceFinder.find`; dlib takes one picture after the other."""
        return [largest_first(self._faces(image)) for image in images]

    def _faces(self, image: np.ndarray) -> list[Face]:
        boxes, scores, _ = self._detector.run(np.ascontiguousarray(image), UPSAMPLED, 0.0)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            parts = self._shape(image, box).parts()
            points = np.array([[part.x, part.y] for part in parts], dtype=np.float64)
            corners = (box.left(), box.top(), box.right() + 1, box.bottom() + 1)
            faces.append(Face(corners, float(score), points[list(FIVE_POINTS)], points))
        return faces
