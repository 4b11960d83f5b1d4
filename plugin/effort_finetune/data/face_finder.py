"""What every face finder offers: boxes and five points for a batch of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Face:
    """One face of a picture.

    Attributes:
        box: Left, top, right, bottom, in pixels.
        score: The finder's own certainty; scales differ between finders.
        points: ``float64[5, 2]`` as (x, y): left eye, right eye, nose, left and right corner of the mouth, as
            seen in the picture.
        landmarks: All points of the finder's model, ``float64[N, 2]``; None where it has only the five.
    """

    box: tuple[float, float, float, float]
    score: float
    points: np.ndarray
    landmarks: np.ndarray | None = None

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        left, top, right, bottom = self.box
        return max(0.0, right - left) * max(0.0, bottom - top)


class FaceFinder(Protocol):
    """Finds faces; made once per process, for its models take time to load."""

    @property
    def name(self) -> str:
        """As ``--faces`` has it."""

    @property
    def model_hash(self) -> str:
        """SHA-256 of the model's files, in hexadecimal."""

    @property
    def licence(self) -> str:
        """Of code and model, in one line."""

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Faces of each picture, the largest first.

        Args:
            images: ``uint8[H, W, 3]`` each, RGB; sizes may differ, equal ones are faster.
        """


def largest_first(faces: Iterable[Face]) -> list[Face]:
    """Sorted by the area of the box; of equal ones the more certain first."""
    return sorted(faces, key=lambda face: (-face.area, -face.score))
