"""What can be done to a picture: each function takes ``uint8[H, W, 3]`` (RGB), one number and a generator.

Pure functions without names or levels; which numbers are used is said in
:mod:`~effort_finetune.data.corruptions` and :mod:`~effort_finetune.data.deliveries`. All give back a new
``uint8[H, W, 3]`` of the same size, but for :func:`cut_edges`.
"""

from __future__ import annotations

import importlib.util
import io

import cv2
import numpy as np

Picture = np.ndarray
#: Blocks in a row and in a column of a picture, for :func:`cover_blocks`.
GRID = 16
MOST_EDGE = 0.06  # of a side, which a screenshot loses at each edge


def through_jpeg(image: Picture, quality: float, _: np.random.Generator) -> Picture:
    """Encodes as JPEG (4:2:0) and decodes."""
    return _through(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, int(quality)])


def through_webp(image: Picture, quality: float, _: np.random.Generator) -> Picture:
    """Encodes as lossy WebP and decodes."""
    return _through(image, ".webp", [cv2.IMWRITE_WEBP_QUALITY, int(quality)])


def through_h264(image: Picture, crf: float, _: np.random.Generator) -> Picture:
    """Encodes the picture alone as a frame of H.264 video (x264, 4:2:0) and decodes.

    A frame of its own shows what quantisation and chroma do, not what motion does. Needs PyAV.
    """
    import av

    height, width = image.shape[:2]
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        options = {"crf": str(int(crf)), "preset": "medium", "threads": "1"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width = even.shape[:2]
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(even.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as encoded:
        decoded = next(encoded.decode(video=0)).to_ndarray(format="rgb24")
    return np.ascontiguousarray(decoded[:height, :width])


def video_codec_is_there() -> bool:
    """Tells whether :func:`through_h264` can run, without importing anything."""
    return importlib.util.find_spec("av") is not None


def blur(image: Picture, sigma: float, _: np.random.Generator) -> Picture:
    """Gaussian blur; ``sigma`` in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def add_noise(image: Picture, deviation: float, rng: np.random.Generator) -> Picture:
    """Gaussian noise of every channel and pixel; ``deviation`` in grey levels of 255."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(deviation)
    return _rounded(image.astype(np.float32) + noise)


def shrink(image: Picture, factor: float, _: np.random.Generator) -> Picture:
    """Resizes to ``factor`` times the side and back."""
    height, width = image.shape[:2]
    return there_and_back(image, max(1, round(width * factor)), max(1, round(height * factor)))


def there_and_back(image: Picture, width: int, height: int) -> Picture:
    """Resizes by area and back by cubic interpolation."""
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)


def crop_part(image: Picture, share: float, rng: np.random.Generator) -> Picture:
    """A part with ``share`` of each side, at a drawn place, resized to the whole size."""
    height, width = image.shape[:2]
    high, wide = max(1, round(height * share)), max(1, round(width * share))
    top, left = (int(rng.integers(0, most + 1)) for most in (height - high, width - wide))
    part = image[top : top + high, left : left + wide]
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)


def change_brightness(image: Picture, change: float, rng: np.random.Generator) -> Picture:
    """Multiplies all values by ``1 + change`` or ``1 - change``, drawn."""
    return _rounded(image.astype(np.float32) * _factor(change, rng))


def change_contrast(image: Picture, change: float, rng: np.random.Generator) -> Picture:
    """Moves all values from or towards the mean grey, by ``1 + change`` or ``1 - change``, drawn."""
    mean = np.float32(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
    return _rounded((image.astype(np.float32) - mean) * _factor(change, rng) + mean)


def change_saturation(image: Picture, change: float, rng: np.random.Generator) -> Picture:
    """Moves all values from or towards the pixel's grey, by ``1 + change`` or ``1 - change``, drawn."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    return _rounded((image.astype(np.float32) - grey) * _factor(change, rng) + grey)


def cover_blocks(image: Picture, share: float, rng: np.random.Generator) -> Picture:
    """Covers ``share`` of the cells of a 16 x 16 grid with one drawn colour each."""
    out = image.copy()
    rows = np.linspace(0, image.shape[0], GRID + 1).round().astype(int)
    columns = np.linspace(0, image.shape[1], GRID + 1).round().astype(int)
    for cell in rng.permutation(GRID * GRID)[: round(share * GRID * GRID)].tolist():
        row, column = divmod(cell, GRID)
        colour = rng.integers(0, 256, 3)
        out[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = colour
    return out


def cut_edges(image: Picture, _: float, rng: np.random.Generator) -> Picture:
    """What a screenshot does: up to 6 % cut off at each edge, shown a little smaller, stored anew as PNG.

    Returns:
        ``uint8[H', W', 3]``, smaller than the picture.
    """
    height, width = image.shape[:2]
    top, bottom, left, right = (float(rng.uniform(0.01, MOST_EDGE)) for _ in range(4))
    part = image[
        int(height * top) : height - int(height * bottom), int(width * left) : width - int(width * right)
    ]
    scale = float(rng.uniform(0.75, 0.95))
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    return cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)


def _factor(change: float, rng: np.random.Generator) -> np.float32:
    return np.float32(1 + change if rng.integers(2) else 1 - change)


def _through(image: Picture, suffix: str, options: list[int]) -> Picture:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode {suffix}")
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if decoded is None:
        raise RuntimeError(f"OpenCV could not decode its own {suffix}")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _rounded(values: np.ndarray) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
