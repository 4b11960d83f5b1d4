"""Every picture there is: the same pixels through every format, or one reason why there are none."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from effort_finetune.data import decode as module
from effort_finetune.data.decode import decode, read_picture
from effort_finetune.data.picture_header import Unreadable, read_header, read_size

from .conftest import picture

#: Smooth and not saturated, so that lossy formats come close.
PIXELS = cv2.GaussianBlur(cv2.resize(picture(3, 64), (64, 48)), (0, 0), 9)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


RGB = Image.fromarray(PIXELS)
LOSSLESS = {
    "png": encoded(RGB, "PNG"),
    "bmp": encoded(RGB, "BMP"),
    "tiff": encoded(RGB, "TIFF"),
    "tiff lzw": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "webp": encoded(RGB, "WEBP", lossless=True),
    "jpeg 2000": encoded(RGB, "JPEG2000"),
    "tiff cmyk": encoded(RGB.convert("CMYK"), "TIFF"),
    "png 16 bit": cv2.imencode(".png", PIXELS[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes(),
    "tiff 16 bit": cv2.imencode(".tif", PIXELS[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes(),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_the_pixels_that_were_stored(name: str) -> None:
    np.testing.assert_array_equal(decode(LOSSLESS[name]), PIXELS)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_lossy_formats_of_other_libraries_come_close(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="HEIC needs the extra 'pictures'").register_heif_opener()
    assert np.abs(decode(encoded(RGB, kind, quality=95)).astype(int) - PIXELS).mean() < 6


def test_ordinary_pictures_have_the_hosts_pixels_to_the_bit() -> None:
    for suffix, options in ((".png", []), (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 71])):
        data = cv2.imencode(suffix, PIXELS[:, :, ::-1], options)[1]
        host = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(decode(data.tobytes()), host)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_left_out_and_the_colours_stay(kind: str) -> None:
    image = RGB.copy()
    image.putalpha(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode(encoded(image, kind, **options)), PIXELS)


def test_grey_palette_and_16_bit_grey_become_rgb() -> None:
    grey = np.asarray(RGB.convert("L"))
    for data in (
        encoded(RGB.convert("L"), "PNG"),
        encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
    ):
        np.testing.assert_array_equal(decode(data), np.repeat(grey[:, :, None], 3, 2))
    palette = RGB.quantize()
    np.testing.assert_array_equal(decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}.get(kind, {"quality": 95})
    data = encoded(RGB, kind, exif=exif, **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    found = decode(data)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 3
    assert found.shape == ((64, 48, 3) if orientation > 4 else (48, 64, 3))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation_is_taken_and_its_frames_are_told(kind: str) -> None:
    data = encoded(RGB, kind, save_all=True, append_images=[ImageOps.invert(RGB)])
    assert read_header(data).frames == 2
    assert np.abs(decode(data).astype(int) - PIXELS).mean() < 20
    assert read_header(encoded(RGB, kind)).frames == 1


def huge_png(width: int, height: int) -> bytes:
    """The header of a picture of any size, with a few pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (12000, 12000), (40000, 10), (0, 5)])
def test_a_header_that_asks_for_too_much_is_refused_before_decoding(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(Unreadable, match=f"header says {width} x {height} pixels"):
        decode(huge_png(width, height))


def test_sizes_are_read_from_the_header_alone() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF"):
        data = encoded(RGB, kind)
        header = read_size(data)
        assert (header.format, header.width, header.height) == (kind, 64, 48)
    commented = encoded(RGB, "JPEG", comment=b"\xff\xc0" * 300, progressive=True)
    assert (read_size(commented).width, read_size(commented).height) == (64, 48)


def test_what_is_no_picture_has_a_reason(tmp_path: Path) -> None:
    cut = LOSSLESS["tiff lzw"][: len(LOSSLESS["tiff lzw"]) // 2]
    for data in (b"", b"text", cut, LOSSLESS["png"][:100], LOSSLESS["webp"][:60]):
        with pytest.raises(Unreadable, match=r"\w"):
            decode(data)
    floats = encoded(Image.fromarray(PIXELS[:, :, 0].astype(np.float32)), "TIFF")
    with pytest.raises(Unreadable, match="32-bit numbers"):
        decode(floats)
    with pytest.raises(Unreadable, match="No such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(Unreadable, match="no regular file"):
        read_picture(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    reasons: list[str] = []

    def read() -> None:
        try:
            read_picture(tmp_path / "pipe.png")
        except Unreadable as error:
            reasons.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert reasons == ["no regular file"]


def test_heic_without_its_package_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effort_finetune.data.picture_header._heif_is_known", lambda: False)
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"
    with pytest.raises(Unreadable, match="pip install pillow-heif"):
        decode(data)


@given(st.sampled_from([*LOSSLESS.values(), encoded(RGB, "GIF"), encoded(RGB, "AVIF")]), st.data())
def test_damaged_bytes_never_raise_anything_else(whole: bytes, draw: st.DataObject) -> None:
    data = bytearray(whole)
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, min(len(data), 400) - 1))] = draw.draw(st.integers(0, 255))
    try:
        image = decode(bytes(data))
    except Unreadable as error:
        if not str(error):
            pytest.fail("no reason")
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.shape[0] * image.shape[1] <= module.MAX_PIXELS
