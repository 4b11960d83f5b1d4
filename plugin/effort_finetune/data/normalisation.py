"""From the pixels of a crop to the numbers a model is given; one way for datasets and single files."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch


def normalisation_table(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """``float32[3, 256]``: (value / 255 - mean) / std, rounded as torch's own operations round it."""
    values = torch.arange(256, dtype=torch.float32).div(255).repeat(3, 1)
    offset = torch.tensor(list(mean), dtype=torch.float32)[:, None]
    scale = torch.tensor(list(std), dtype=torch.float32)[:, None]
    return values.sub(offset).div(scale).numpy()


def normalise(image: np.ndarray, table: np.ndarray) -> torch.Tensor:
    """``uint8[H, W, 3]`` to the normalised ``float32[3, H, W]``.

    Args:
        image: RGB.
        table: Of :func:`normalisation_table`; a channel takes 256 values, so looking up is exact.
    """
    planes = np.empty((3, *image.shape[:2]), dtype=np.float32)
    for plane, channel, values in zip(planes, cv2.split(image), table, strict=True):
        cv2.LUT(channel, values, dst=plane)
    return torch.from_numpy(planes)
