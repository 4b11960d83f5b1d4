"""Frames in the process that reads them: made small for the page, or as they are to be trained on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

PREVIEW_SIDE = 960  # of a picture; of a video's frame, of which there are many
FRAME_SIDE = 640
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]


@dataclass(frozen=True)
class SmallFrame:
    """A frame as a small JPEG.

    Attributes:
        number: Of the frame.
        width: Of the frame itself, in pixels.
        height: The same.
        jpeg: Its bytes.
    """

    number: int
    width: int
    height: int
    jpeg: bytes


def small_frame(number: int, image: np.ndarray) -> SmallFrame:
    """Makes a frame small; the first one, which may be a picture, less so.

    Args:
        number: Of the frame.
        image: ``uint8[H, W, 3]``, RGB.
    """
    height, width = image.shape[:2]
    scale = (FRAME_SIDE if number else PREVIEW_SIDE) / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return SmallFrame(number, width, height, jpeg(image))


def jpeg(image: np.ndarray) -> bytes:
    """Encodes ``uint8[H, W, 3]``, RGB."""
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG)[1].tobytes()


def numbered_png(number: int, image: np.ndarray) -> tuple[int, bytes]:
    """A frame as it is, with its number."""
    return number, png(image)


def png(image: np.ndarray) -> bytes:
    """Encodes ``uint8[H, W, 3]``, RGB, without loss."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
