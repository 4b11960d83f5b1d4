"""What a picture's file tells without its content, and what its pixels tell without a face: numbers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from effort_finetune.data.decode import decode
from effort_finetune.data.picture_header import Unreadable, open_lazily

CONTAINER = ("format", "mode", "width", "height", "aspect", "jpeg_table", "exif", "bytes_per_pixel")
STATISTICS = ("sharpness", "brightness", "contrast", "saturation", "noise")
_EXIF_ORIENTATION_ONLY = {0x0112}


def container_of(data: bytes) -> Mapping[str, float] | None:
    """Format, size, aspect, JPEG quality, EXIF and bytes per pixel of an encoded picture.

    Returns:
        One number for each of :data:`CONTAINER`; names as a hash, the JPEG quality as the mean of its first
        quantisation table (0 for other formats). None where it is no picture.
    """
    try:
        with open_lazily(data) as image:
            tables: Any = getattr(image, "quantization", None) or {}
            try:
                exif = bool(set(image.getexif()) - _EXIF_ORIENTATION_ONLY)
            except Exception:  # a spoilt block is one
                exif = True
            width, height = image.size
            values = (
                _number(image.format or "?"),
                _number(image.mode),
                width,
                height,
                width / max(height, 1),
                float(np.mean(tables[min(tables)])) if tables else 0.0,
                exif,
                len(data) / max(width * height, 1),
            )
    except Unreadable:
        return None
    return dict(zip(CONTAINER, map(float, values), strict=True))


def _number(name: str) -> float:
    return float(zlib.crc32(name.encode()) % 9973)


def statistics_of(data: bytes) -> Mapping[str, float] | None:
    """Sharpness, colour and noise of the pixels, one number for each of :data:`STATISTICS`.

    Returns:
        Logarithm of the Laplacian's variance; mean and deviation of the grey values; mean saturation;
        median size of what a 3x3 median takes away. None where the picture cannot be decoded.
    """
    try:
        image = decode(data)
    except Unreadable:
        return None
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    rest = np.abs(grey.astype(np.int16) - cv2.medianBlur(grey, 3))
    values = (
        np.log1p(cv2.Laplacian(grey, cv2.CV_64F).var()),
        grey.mean(),
        grey.std(),
        cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1].mean(),
        rest.mean(),
    )
    return dict(zip(STATISTICS, map(float, values), strict=True))
