"""What `predict` says of odd files: 75 of them, one command, a table of its records.

python -m benchmarks.odd_files --weights FILE --json benchmarks/results/odd_files.json
python -m benchmarks.odd_files --weights FILE --no-long     # without the film of two hours

The files are made from one photo (scikit-image's astronaut). The command is a process of its own; it must
end with 0, print no traceback and write a record for each file.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image
from skimage import data

from effort_finetune.core.files import write_json

HOURS_OF_FRAMES = 2 * 3600 * 25
PHOTO = data.astronaut()  # uint8[512, 512, 3], RGB
FACE = PHOTO[10:220, 120:330]
NOISE = np.random.default_rng(0).integers(0, 256, (210, 210, 3)).astype(np.uint8)
Frames = Iterator[np.ndarray]
Maker = Callable[[Path], Any]


def picture(kind: str, image: np.ndarray = FACE, mode: str = "RGB", **more: Any) -> bytes:
    """Encodes a picture with Pillow."""
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, kind, **more)
    return stream.getvalue()


def several(kind: str, count: int = 8, **more: Any) -> bytes:
    """Encodes a picture of several frames or pages."""
    stream = io.BytesIO()
    first, *others = (Image.fromarray(np.roll(FACE, 4 * shift, axis=1)) for shift in range(count))
    first.save(stream, kind, save_all=True, append_images=others, **more)
    return stream.getvalue()


def film(
    path: Path,
    frames: Frames,
    *,
    codec: str = "mpeg4",
    format: str | None = None,
    pixels: str = "yuv420p",
    times: Callable[[int], int] = lambda number: 40 * number,
) -> None:
    """Writes a film with PyAV.

    Args:
        path: Where it goes.
        frames: ``uint8[H, W, 3]``, RGB, of one size.
        codec: FFmpeg's name of it.
        format: Of the container; by the suffix where it is None.
        pixels: FFmpeg's pixel format.
        times: Milliseconds at which a frame is shown, by its number.
    """
    with av.open(str(path), "w", format=format) as container:
        first = next(frames)
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *first.shape[:2], pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate((first, *frames)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = times(number), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def moving(count: int = 12, side: int = 256) -> Frames:
    """The photo about its face, drifting."""
    for number in range(count):
        yield cv2.resize(PHOTO[:260, 90 + number : 350 + number], (side, side))


def long_film(path: Path) -> None:
    """Two hours at 25 frames a second; only its frames' order matters, so they are small and few differ."""
    shown = [cv2.resize(PHOTO[:260, 90 + shift : 350 + shift], (128, 128)) for shift in range(8)]
    film(path, (shown[number // 22500] for number in range(HOURS_OF_FRAMES)))


def face_comes_and_goes() -> Frames:
    for number, image in enumerate(moving(16)):
        yield image if number % 4 < 2 else cv2.resize(NOISE, (256, 256))


def many_faces(count: int) -> np.ndarray:
    small = cv2.resize(FACE, (105, 105))
    return np.vstack([np.hstack([small] * 5)] * -(-count // 5))


def within(width: int, height: int) -> np.ndarray:
    """A dark picture of some size with the face in it."""
    canvas = np.full((height, width, 3), 40, np.uint8)
    canvas[: FACE.shape[0], -FACE.shape[1] :] = FACE
    return canvas


def huge_header() -> bytes:
    """A PNG whose header says 60,000 x 60,000."""
    made = bytearray(picture("PNG"))
    made[16:24] = (60000).to_bytes(4, "big") * 2
    return bytes(made)


def damaged(content: bytes) -> bytes:
    """The same with a hundred bytes of its middle overwritten."""
    middle = len(content) // 2
    return content[:middle] + b"\x00" * 100 + content[middle + 100 :]


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("face.png", picture("PNG"))
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    said = Image.Exif()
    said[0x0112] = orientation
    return said.tobytes()


def of(content: bytes) -> Maker:
    """A maker that writes bytes."""
    return lambda path: path.write_bytes(content)


def of_film(frames: Callable[[], Frames] = moving, **more: Any) -> Maker:
    """A maker that writes a film."""
    return lambda path: film(path, frames(), **more)


def cut_film(path: Path) -> None:
    film(path, moving(), format="mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        for start in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, 1024 * start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def files(*, long: bool) -> dict[str, tuple[str, Maker]]:
    """Name to what is odd about it, and how it is made."""
    png, jpeg, grey = picture("PNG"), picture("JPEG"), cv2.cvtColor(FACE, cv2.COLOR_RGB2GRAY)
    deep, alpha = grey.astype(np.uint16) << 8, np.dstack([FACE, grey])
    made: dict[str, tuple[str, Maker]] = {
        "face.png": ("a face", of(png)),
        "face.jpg": ("JPEG", of(jpeg)),
        "face.JPEG": ("suffix in capitals", of(jpeg)),
        "progressive.jpg": ("progressive JPEG", of(picture("JPEG", progressive=True))),
        "face.webp": ("WebP", of(picture("WEBP"))),
        "face.bmp": ("BMP", of(picture("BMP"))),
        "face.tif": ("TIFF", of(picture("TIFF"))),
        "face.jp2": ("JPEG 2000", of(picture("JPEG2000"))),
        "face.avif": ("AVIF", of(picture("AVIF"))),
        "face.ico": ("icon", of(picture("ICO", sizes=[(128, 128)]))),
        "face.ppm": ("PPM", of(picture("PPM"))),
        "cmyk.jpg": ("JPEG in CMYK", of(picture("JPEG", mode="CMYK"))),
        "grey.png": ("grey", of(picture("PNG", grey, "L"))),
        "grey16.png": ("grey, 16 bit", of(picture("PNG", deep, "I;16"))),
        "float.tif": ("TIFF of 32-bit numbers", of(picture("TIFF", grey, "F"))),
        "alpha.png": ("alpha", of(picture("PNG", alpha, "RGBA"))),
        "grey_alpha.png": ("grey with alpha", of(picture("PNG", grey, "LA"))),
        "palette.png": ("palette", of(picture("PNG", mode="P"))),
        "one_bit.png": ("black and white, one bit", of(picture("PNG", mode="1"))),
        "turned.png": ("turned by 90 degrees", of(picture("PNG", np.ascontiguousarray(np.rot90(FACE))))),
        "upside_down.png": ("upside down", of(picture("PNG", np.ascontiguousarray(FACE[::-1])))),
        "exif.jpg": ("turned by its EXIF alone", of(picture("JPEG", np.rot90(FACE).copy(), exif=exif(6)))),
        "4k.png": ("3840 x 2160", of(picture("PNG", within(3840, 2160)))),
        "8k.jpg": ("7680 x 4320", of(picture("JPEG", within(7680, 4320)))),
        "one_pixel.png": ("1 x 1", of(picture("PNG", FACE[:1, :1]))),
        "strip.png": ("1 x 5000", of(picture("PNG", np.tile(FACE[:1], (1, 24, 1))))),
        "wide.png": ("5000 x 210, face at its end", of(picture("PNG", within(5000, 210)))),
        "blank.png": ("white", of(picture("PNG", np.full((210, 210, 3), 255, np.uint8)))),
        "noise.png": ("noise", of(picture("PNG", NOISE))),
        "small_face.png": ("a face of 15 px", of(picture("PNG", cv2.resize(FACE, (24, 24))))),
        "two_faces.png": ("two faces", of(picture("PNG", np.hstack([FACE, FACE])))),
        "twenty_faces.png": ("twenty faces", of(picture("PNG", many_faces(20)))),
        "huge_header.png": ("its header claims 60000 x 60000", of(huge_header())),
        "cut.png": ("cut in the middle", of(png[: len(png) // 2])),
        "cut.jpg": ("cut in the middle", of(jpeg[: len(jpeg) // 2])),
        "damaged.jpg": ("bytes overwritten", of(damaged(jpeg))),
        "damaged.png": ("bytes overwritten", of(damaged(png))),
        "zero.jpg": ("0 bytes", of(b"")),
        "one_byte.png": ("1 byte", of(b"\x89")),
        "text.jpg": ("text", of(b"no picture\n" * 20)),
        "page.jpg": ("HTML, as a failed download leaves it", of(b"<!doctype html><title>404</title>")),
        "archive.png": ("a ZIP", of(archive())),
        "drawing.svg": ("SVG", of(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')),
        "paper.pdf": ("PDF", of(picture("PDF"))),
        "png_as.jpg": ("PNG named .jpg", of(png)),
        "jpeg_as.mp4": ("JPEG named .mp4", of(jpeg)),
        "no_suffix": ("JPEG without a suffix", of(jpeg)),
        "unknown.xyz": ("JPEG with an unknown suffix", of(jpeg)),
        "line\nbreak.png": ("a line break in its name", of(png)),
        "مرحبا 顔 \u202egnp.png": ("letters of many scripts in its name", of(png)),
        "n" * 240 + ".png": ("a name of 244 letters", of(png)),
        "animated.gif": ("animated GIF", of(several("GIF"))),
        "still.gif": ("GIF of one frame", of(picture("GIF"))),
        "animated.png": ("animated PNG", of(several("PNG"))),
        "animated.webp": ("animated WebP", of(several("WEBP"))),
        "pages.tif": ("TIFF of eight pages", of(several("TIFF"))),
        "film.mp4": ("MPEG-4", of_film()),
        "film.avi": ("Motion JPEG in AVI", of_film(codec="mjpeg", pixels="yuvj420p")),
        "film.webm": ("VP9 in WebM", of_film(codec="libvpx-vp9")),
        "h264.mkv": ("H.264 in Matroska", of_film(codec="libx264")),
        "ten_bit.mp4": ("H.265, 10 bit", of_film(codec="libx265", pixels="yuv420p10le")),
        "one_frame.mp4": ("a film of one frame", of_film(lambda: moving(1))),
        "three_frames.mp4": ("a film of three frames", of_film(lambda: moving(3))),
        "odd_size.mkv": ("102 x 102 pixels", of_film(lambda: moving(8, 102))),
        "vfr.mkv": ("frames at uneven times", of_film(times=lambda number: 30 * number + 5 * number**2)),
        "pause.mkv": ("a pause of an hour", of_film(times=lambda n: 40 * n + 3_600_000 * (n > 5))),
        "comes_and_goes.mp4": ("a face in half of its frames", of_film(face_comes_and_goes)),
        "film_as.jpg": ("a film named .jpg", of_film(format="mp4")),
        "cut.mp4": ("a film cut in the middle", cut_film),
        "text.mp4": ("text named .mp4", of(b"no film\n" * 50)),
        "sound.mp4": ("sound alone", sound),
        "pipe": ("a pipe that nobody writes to", os.mkfifo),
        "gone.png": ("a link to nothing", lambda path: path.symlink_to("nowhere.png")),
        "loop.png": ("a link to itself", lambda path: path.symlink_to(path.name)),
    }  # fmt: skip
    if long:
        made["two_hours.mp4"] = ("two hours: 180,000 frames", long_film)
    return made


def judged(weights: Path, folder: Path, faces: str) -> list[dict[str, Any]]:
    """Returns the records that the command writes.

    Raises:
        SystemExit: It does not end with 0, or a traceback is printed.
    """
    records = folder.parent / "records.jsonl"
    words = ("predict", folder, "--weights", weights, "--faces", faces, "--device", "cpu", "--jsonl", records)
    command = [sys.executable, "-m", "effort_finetune", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode or "Traceback" in ran.stdout + ran.stderr:
        raise SystemExit(f"exit code {ran.returncode}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    return [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]


def row_of(name: str, what: str, record: dict[str, Any]) -> dict[str, Any]:
    """What the table says of a file."""
    frames = {key: record[f"frames_{key}"] for key in ("read", "without_face", "undecodable")}
    return {
        "file": name[:40],
        "odd": what,
        **{key: record[key] for key in ("status", "kind", "verdict")},
        "frames": {key: count for key, count in frames.items() if count},
        "faces": len(record["faces"]),
        "reasons": record["reasons"],
    }


def main(words: Sequence[str] | None = None) -> int:
    """Makes the files, asks the command about them, prints and keeps the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--faces", default="mtcnn")
    parser.add_argument("--long", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path, help="keep the table")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "odd"
        folder.mkdir()
        made = files(long=options.long)
        for name, (_, make) in made.items():
            make(folder / name)
        records = {Path(r["file"]).name: r for r in judged(options.weights, folder, options.faces)}
    if set(records) != set(made):
        raise SystemExit(f"no record of {sorted(set(made) - set(records))}")
    rows = [row_of(name, what, records[name]) for name, (what, _) in made.items()]
    for row in rows:
        print(f"{row['file']!r:44.44} {row['status']:10} {row['verdict']:6} {'; '.join(row['reasons'])[:90]}")
    print(f"{len(rows)} files, {len(records)} records")
    if options.json is not None:
        write_json(options.json, {"faces": options.faces, "files": len(rows), "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
