"""How a picture of any shape becomes the square that a detector sees; never squashed unless asked for.

The road of every picture that is not a crop of the index: picture -> fit -> 256 px crop -> resolution.
What ``prepare`` stores is the second step's output, so a folder and what was prepared from it have the same
pixels.
``native`` takes pixels as they are, the way the released UniversalFakeDetect checkpoint was trained.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np

from effort_finetune.core.interpolation import OPENCV_FLAG, Interpolation

Fit = Literal["crop", "pad", "squash", "native"]
FITS: tuple[Fit, ...] = get_args(Fit)
CROP_SIDE = 256  # pixels, DeepfakeBench's crops


def fit_square(image: np.ndarray, fit: Fit, *, size: int = CROP_SIDE) -> np.ndarray:
    """Makes a picture the square crop that is stored.

    Args:
        image: ``uint8[H, W, 3]``.
        fit: ``crop`` takes the square in the middle, ``pad`` adds black beside it, ``squash`` stretches it.
        size: Side of the crop in pixels.

    Returns:
        ``uint8[size, size, 3]``; a picture that has this size already comes back as it is.

    Raises:
        ValueError: ``native``, which has no crop in between.
    """
    if fit == "native":
        raise ValueError("native takes pixels as they are: use native_square")
    square = {"crop": _middle, "pad": _padded, "squash": lambda whole: whole}[fit](image)
    if square.shape[:2] == (size, size):
        return square
    interpolation = cv2.INTER_AREA if min(square.shape[:2]) > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=interpolation)


def native_square(image: np.ndarray, size: int, *, seed: int | None = None) -> np.ndarray:
    """Takes ``size`` x ``size`` pixels without resampling; a smaller picture is repeated until it is larger.

    Args:
        image: ``uint8[H, W, 3]``.
        size: Side in pixels.
        seed: Draws the place (training); None takes the middle.
    """
    height, width = image.shape[:2]
    if height < size or width < size:
        image = np.tile(image, (-(-size // height), -(-size // width), 1))
        height, width = image.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    if seed is not None:
        draw = random.Random(seed)
        top, left = draw.randint(0, height - size), draw.randint(0, width - size)
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def fitted(
    image: np.ndarray,
    fit: Fit | None,
    resolution: int,
    *,
    interpolation: Interpolation = "bicubic",
    seed: int | None = None,
    corrupt: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """The whole road of a decoded picture to the input's size; a crop is resized as the host does it.

    Args:
        image: ``uint8[H, W, 3]``, RGB.
        fit: See :func:`fit_square` and :func:`native_square`; None for a crop, which is a square already.
        resolution: Side of the result.
        interpolation: How it is brought there; hosts do it by ``INTER_CUBIC``, also when shrinking.
        seed: Place of ``native`` in training.
        corrupt: Done to the square before it is resized.

    Returns:
        ``uint8[resolution, resolution, 3]``, RGB.
    """
    if fit == "native":
        image = native_square(image, resolution, seed=seed)
    elif fit is not None:
        image = fit_square(image, fit)
    if corrupt is not None:
        image = corrupt(image)
    if fit == "native":
        return image
    flag: int = getattr(cv2, OPENCV_FLAG[interpolation])
    return cv2.resize(image, (resolution, resolution), interpolation=flag)


def _middle(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _padded(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return cv2.copyMakeBorder(
        image, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )
