"""What a picture's file tells without its content, and what its pixels tell without a face: numbers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from effort_finetune.data.decode import decode
from effort_finetune.data.picture_header import Unreadable, open_lazily

CONTAINER = ("format", "mode", "width", "height", "aspect", "jpeg_table", "exif", "bytes_per_pixel")
STATISTICS = ("sharpness", "brightness", "contrast", "saturation", "noise")
Facts = Mapping[str, "str | float"]
_EXIF_ORIENTATION_ONLY = {0x0112}


def picture_facts(data: bytes) -> Facts | None:
    """Format, mode, size, aspect, JPEG quality, EXIF and bytes per pixel of an encoded picture.

    Returns:
        Names as texts (the mode also as ``codec``), the JPEG quality as the mean of its first quantisation
        table (0 for other formats). None where it is no picture.
    """
    try:
        with open_lazily(data) as image:
            tables: Any = getattr(image, "quantization", None) or {}
            try:
                exif = bool(set(image.getexif()) - _EXIF_ORIENTATION_ONLY)
            except Exception:  # a spoilt block is one
                exif = True
            width, height = image.size
            return {
                "format": image.format or "?",
                "codec": image.mode,
                "width": width,
                "height": height,
                "aspect": width / max(height, 1),
                "jpeg_table": float(np.mean(tables[min(tables)])) if tables else 0.0,
                "exif": float(exif),
                "bytes_per_pixel": len(data) / max(width * height, 1),
            }
    except Unreadable:
        return None


def numbers_of(facts: Facts, names: Sequence[str]) -> list[float]:
    """The facts of these names as numbers, texts by a hash; 0 for what is not there."""
    values = (facts.get(name, 0.0) for name in names)
    return [_number(value) if isinstance(value, str) else float(value) for value in values]


def container_of(data: bytes) -> Mapping[str, float] | None:
    """The same as one number for each of :data:`CONTAINER`; None where it is no picture."""
    facts = picture_facts(data)
    if facts is None:
        return None
    return dict(zip(CONTAINER, numbers_of({**facts, "mode": facts["codec"]}, CONTAINER), strict=True))


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
