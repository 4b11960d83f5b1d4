"""One decoder for every picture the product reads: pixels, or the reason why there are none.

PNG, JPEG, WebP, BMP and JPEG 2000 go through OpenCV as in DeepfakeBench (EXIF orientation applied, alpha
left out, 16 bit cut to 8, grey and palettes made RGB), so that their pixels are the host's to the bit. The
rest, and what OpenCV refuses, goes through Pillow by the same rules. Of an animation or several pages it
gives the first; :mod:`several_pictures` reads all.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from effort_finetune.data.picture_header import PictureHeader, Unreadable, open_lazily, read_size

if TYPE_CHECKING:
    from PIL.Image import Image

#: Above, a picture is refused before it is decoded: 134 megapixels are 400 MB of pixels.
MAX_PIXELS = 1 << 27
MAX_SIDE = 32767  # OpenCV's own bound where it moves pixels
MAX_BYTES = 1 << 30
_OPENCV_FORMATS = frozenset({"PNG", "JPEG", "MPO", "WEBP", "BMP", "JPEG2000"})


def decode(data: bytes) -> np.ndarray:
    """Decodes a picture of any format, size and colours.

    Args:
        data: The file's bytes.

    Returns:
        ``uint8[H, W, 3]``, RGB, upright.

    Raises:
        Unreadable: Whatever keeps it from being decoded, or a header that asks for more than
            :data:`MAX_PIXELS`.
    """
    if not data:
        raise Unreadable("empty file")
    header = read_size(data)
    _check_size(header)
    _check_png_chunks(data)
    if header.format in _OPENCV_FORMATS or (header.format == "TIFF" and _opencv_reads_tiff(header)):
        image = _with_opencv(data)
        if image is not None:
            return image
    return _with_pillow(data)


def read_picture(path: Path | str) -> np.ndarray:
    """Reads and decodes a picture file; see :func:`decode`.

    Raises:
        Unreadable: Also where it is no regular file (a pipe would wait for ever) or cannot be read.
    """
    return decode(read_bytes(path))


def read_bytes(path: Path | str) -> bytes:
    """Bytes of a picture file.

    Raises:
        Unreadable: No such file, no regular file, one of more than :data:`MAX_BYTES`, or no right to read.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("no regular file")
        if found.st_size > MAX_BYTES:
            raise Unreadable(f"{found.st_size / 1e9:.1f} GB are no picture")
        with open(path, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error


def _check_size(header: PictureHeader) -> None:
    width, height = header.width, header.height
    if width < 1 or height < 1 or width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Unreadable(
            f"its header says {width} x {height} pixels; at most {MAX_PIXELS >> 20} Mi and {MAX_SIDE} a side"
        )


def _check_png_chunks(data: bytes) -> None:
    """OpenCV 5 makes room for what a PNG's chunk claims to hold, up to 2 GB, before it reads it."""
    at = 8
    while data.startswith(b"\x89PNG\r\n\x1a\n") and at + 8 <= len(data) and data[at + 4 : at + 8] != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        if length > len(data) - at - 8:
            raise Unreadable("truncated or damaged: a part of the PNG claims more than the file holds")
        at += 12 + length


def _opencv_reads_tiff(header: PictureHeader) -> bool:
    """OpenCV multiplies alpha into the colours of a TIFF, and cuts 32-bit values as if they were 8-bit."""
    return header.mode in ("1", "L", "P", "RGB", "CMYK", "I;16", "I;16B")


def _with_opencv(data: bytes) -> np.ndarray | None:
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _with_pillow(data: bytes) -> np.ndarray:
    with open_lazily(data) as image:
        return pixels_of(image)


def pixels_of(image: Image) -> np.ndarray:
    """Pixels of an opened picture, or of the frame or page that it stands at; see :func:`decode`.

    Args:
        image: As Pillow opened it.

    Raises:
        Unreadable: It is damaged or too large.
    """
    from PIL import ImageOps

    _check_size(PictureHeader(image.format or "?", image.width, image.height))
    if image.mode in ("F", "I"):
        raise Unreadable("its pixels are 32-bit numbers without an agreed range; save it with 8 or 16 bit")
    try:
        if image.mode.startswith("I;16"):
            high = np.asarray(image).astype(np.uint16) >> 8
            return np.repeat(high.astype(np.uint8)[:, :, None], 3, axis=2)
        upright = ImageOps.exif_transpose(image)
        return np.array((upright or image).convert("RGB"))
    except Exception as error:  # Pillow's plugins raise what they like
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Unreadable(f"damaged: {reason}") from error
