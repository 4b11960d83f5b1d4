"""Training augmentation from ``config['data_aug']``, for albumentations 1.x and 2.x."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from .errors import DatasetError

JPEG_PROBABILITY = 0.5
#: The limits that each probability needs.
NEEDED = {
    "rotate_prob": ("rotate_limit",),
    "blur_prob": ("blur_limit",),
    "brightness_prob": ("brightness_limit", "contrast_limit"),
}


def _check(options: Mapping[str, Any]) -> None:
    for key, limits in NEEDED.items():
        missing = [limit for limit in limits if options.get(key) and limit not in options]
        if missing:
            raise DatasetError(f"data_aug.{key} is {options[key]}, but data_aug.{missing[0]} is not set")
    if options.get("blur_prob"):
        low, high = options["blur_limit"]
        if not any(size % 2 for size in range(low, high + 1)):
            raise DatasetError(f"data_aug.blur_limit is [{low}, {high}], which holds no odd kernel size")


def build_augmentation(options: Mapping[str, Any], *, seed: int, landmarks: bool = False) -> Any:
    """Build the pipeline: flip, rotation, blur, brightness and contrast, JPEG compression.

    Args:
        options: ``flip_prob, rotate_prob, rotate_limit [degrees], blur_prob, blur_limit [pixels],
            brightness_prob, brightness_limit, contrast_limit, quality_lower, quality_upper`` (JPEG quality);
            an absent probability leaves its step out, absent qualities leave out the compression.
        seed: Seeds the pipeline's own random state where albumentations keeps one (>= 1.4.19); older versions
            draw from the global ``random``.
        landmarks: Whether it is called with ``keypoints`` too.

    Returns:
        A callable of ``image`` (uint8 [H, W, 3] RGB), optional ``mask`` and ``keypoints``.

    Raises:
        DatasetError: A limit is missing, or no odd blur kernel lies within ``blur_limit``.
    """
    _check(options)
    # Its import asks the network for a newer version unless told otherwise.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    steps = [A.HorizontalFlip(p=options.get("flip_prob", 0.0))]
    if options.get("rotate_prob"):
        # The default border differs between albumentations 1 and 2.
        limit = tuple(options["rotate_limit"])
        steps.append(A.Rotate(limit=limit, border_mode=cv2.BORDER_REFLECT_101, p=options["rotate_prob"]))
    if options.get("blur_prob"):
        low, high = options["blur_limit"]
        # One step per odd size with OpenCV's own sigma: left to itself, albumentations 2 also draws even
        # kernels, which shift the image, and another sigma than 1.x.
        sizes = [size for size in range(low, high + 1) if size % 2]
        sigmas = [0.3 * ((size - 1) * 0.5 - 1) + 0.8 for size in sizes]
        blurs = [
            A.GaussianBlur(blur_limit=(size, size), sigma_limit=(sigma, sigma), p=1.0)
            for size, sigma in zip(sizes, sigmas, strict=True)
        ]
        steps.append(A.OneOf(blurs, p=options["blur_prob"]))
    if options.get("brightness_prob"):
        steps.append(
            A.RandomBrightnessContrast(
                brightness_limit=tuple(options["brightness_limit"]),
                contrast_limit=tuple(options["contrast_limit"]),
                p=options["brightness_prob"],
            )
        )
    if "quality_lower" in options and "quality_upper" in options:
        low, high = options["quality_lower"], options["quality_upper"]
        # albumentations 2 renamed the arguments, and only warns about the old ones.
        renamed = "quality_range" in inspect.signature(A.ImageCompression.__init__).parameters
        quality = {"quality_range": (low, high)} if renamed else {"quality_lower": low, "quality_upper": high}
        steps.append(A.ImageCompression(**quality, p=JPEG_PROBABILITY))
    keypoints = A.KeypointParams(format="xy", remove_invisible=False) if landmarks else None
    pipeline = A.Compose(steps, keypoint_params=keypoints)
    if hasattr(pipeline, "set_random_state"):
        # set_random_seed would start every step from the same seed, so that all steps draw the same numbers.
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return pipeline
