"""Files that hold several pictures: animations (GIF, PNG, WebP, AVIF) and the pages of a TIFF."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from effort_finetune.data.decode import decode, pixels_of, read_bytes
from effort_finetune.data.picture_header import open_lazily

if TYPE_CHECKING:
    from PIL.Image import Image

#: Number of a frame and ``uint8[H, W, 3]``, RGB, or the reason why it cannot be decoded.
Frame = tuple[int, "np.ndarray | str"]
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_CHUNKS = 1000  # of a PNG before its pixels
_SUBFILE_TYPE, _SMALLER_OR_MASK = 254, 0b101  # TIFF 6.0, page 36


def holds_several(path: Path) -> Literal["animation", "pages"] | None:
    """Tells by a file's first bytes, whatever its suffix, whether to look for more than one picture in it.

    Args:
        path: A file.

    Returns:
        ``animation`` of any GIF and of an animated PNG, WebP or AVIF; ``pages`` of any TIFF; None otherwise,
        also where it cannot be read.
    """
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as stream:
            head = stream.read(21)
            if head[:4] in _TIFF:
                return "pages"
            webp = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) == 21 and head[20] & 2
            if head[:4] == b"GIF8" or webp or head[4:12] == b"ftypavis" or _animated_png(stream, head):
                return "animation"
    except (OSError, ValueError):
        pass
    return None


def _animated_png(stream: BinaryIO, head: bytes) -> bool:
    """Whether ``acTL`` comes before the pixels, as the format asks of an animation."""
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    at = 8
    for _ in range(_MOST_CHUNKS):
        stream.seek(at)
        start = stream.read(8)
        if len(start) < 8 or start[4:] in (b"IDAT", b"IEND", b"acTL"):
            return start[4:] == b"acTL"
        at += 12 + int.from_bytes(start[:4], "big")
    return False


def read_several(path: Path, wanted: Callable[[int], Sequence[int]]) -> Iterator[Frame]:
    """Pictures of one file, by Pillow; OpenCV gives the first one alone, or all of them at once.

    The small versions and masks that a TIFF may hold of its pages are no pictures of their own.

    Args:
        path: The file.
        wanted: Of their number, the numbers of those to read, increasing.

    Raises:
        Unreadable: It is damaged or too large.
    """
    data = read_bytes(path)
    first = decode(data)  # refuses what is too large
    with open_lazily(data) as image:
        places = _places(image, data)
        for number in wanted(len(places)):
            try:
                image.seek(places[number])
                yield number, first if number == 0 else pixels_of(image)
            except Exception as error:  # Pillow's plugins raise what they like
                yield number, " ".join(str(error).split())[:120] or type(error).__name__


def _places(image: Image, data: bytes) -> Sequence[int]:
    """Where Pillow finds the pictures."""
    try:
        total = int(getattr(image, "n_frames", 1))
    except Exception:  # cut off: the first picture is whole
        total = 1
    if image.format == "PNG":  # whose header may claim two billion
        total = min(total, data.count(b"fcTL") + 1)
    return [n for n in range(total) if _is_page(image, n)] if image.format == "TIFF" else range(total)


def _is_page(image: Any, number: int) -> bool:
    if number == 0:
        return True
    try:
        image.seek(number)
        return not image.tag_v2.get(_SUBFILE_TYPE, 0) & _SMALLER_OR_MASK
    except Exception:  # a damaged page is one, and is named when it is read
        return True
