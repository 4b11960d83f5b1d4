"""What the first bytes of a picture say: its format and size, before anything is decoded."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF_ORIENTATION = 0x0112
HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
#: Markers of a JPEG that hold its size: the start of a frame of any kind but arithmetic tables' definitions.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Unreadable(Exception):
    """A picture that cannot be used; the text is the reason, in a few words."""


@dataclass(frozen=True)
class PictureHeader:
    """What is known of a picture without decoding it.

    Attributes:
        format: ``PNG``, ``JPEG``, ``WEBP``, ... as Pillow names it.
        width: In pixels, as stored (an EXIF orientation may swap the two).
        height: In pixels.
        mode: Pillow's mode (``RGB``, ``RGBA``, ``CMYK``, ``I;16``, ...); None where only size was read.
        orientation: EXIF orientation, 1 to 8; 1 where there is none.
        frames: 2 or more for an animation or several pages.
    """

    format: str
    width: int
    height: int
    mode: str | None = None
    orientation: int = 1
    frames: int = 1


def read_size(data: bytes) -> PictureHeader:
    """Format and size alone; for PNG and JPEG, the formats of crops, within microseconds.

    Raises:
        Unreadable: No picture that is known.
    """
    quick = _png_size(data) or _jpeg_size(data)
    if quick is not None:
        return quick
    with open_lazily(data) as image:
        return PictureHeader(image.format or "?", image.width, image.height, image.mode)


def read_header(data: bytes) -> PictureHeader:
    """All that can be said of a picture without decoding it.

    Raises:
        Unreadable: No picture that is known.
    """
    with open_lazily(data) as image:
        try:
            orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
            frames = int(getattr(image, "n_frames", 1))
        except Exception:  # a spoilt EXIF block or a cut animation: the first frame may still be whole
            orientation, frames = 1, 1
        return PictureHeader(
            image.format or "?",
            image.width,
            image.height,
            image.mode,
            orientation if 1 <= orientation <= 8 else 1,
            frames,
        )


def open_lazily(data: bytes) -> Image:
    """Opens a picture with Pillow, which reads no pixel yet.

    Raises:
        Unreadable: Pillow knows no such picture; says what to install for HEIC.
    """
    from PIL import Image  # not at the top: a run on PNG crops never needs it

    known = _heif_is_known()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; ours is an error, and earlier
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise Unreadable("its header asks for more pixels than any picture has") from error
    except Exception as error:
        brand = _brand(data)
        if brand in HEIF_BRANDS and not known:
            raise Unreadable("HEIC needs a package: pip install pillow-heif") from error
        if brand in AVIF_BRANDS:
            raise Unreadable("AVIF needs a newer Pillow: pip install -U 'pillow>=11.3'") from error
        raise Unreadable("no picture in a known format, or a damaged one") from error


@lru_cache(maxsize=1)
def _heif_is_known() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _brand(data: bytes) -> bytes:
    return data[8:12] if data[4:8] == b"ftyp" else b""


def _png_size(data: bytes) -> PictureHeader | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return PictureHeader("PNG", *struct.unpack(">II", data[16:24]))


def _jpeg_size(data: bytes) -> PictureHeader | None:
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, end = 2, len(data)
    while at + 9 <= end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return PictureHeader("JPEG", width, height)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
