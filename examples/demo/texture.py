"""Noise textures: one bank made once per process, from which every surface takes its own piece."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

SIZE = 256
_BANK = 1024


@lru_cache(maxsize=1)
def grid() -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres of the crop in half crops: x and y, each float32 [256, 256] in (-1, 1)."""
    line = ((np.arange(SIZE) + 0.5) / (SIZE / 2) - 1).astype(np.float32)
    return tuple(np.meshgrid(line, line))  # type: ignore[return-value]


@lru_cache(maxsize=1)
def _bank() -> np.ndarray:
    """White noise [1024, 1024] from a fixed seed."""
    return np.random.default_rng(20240915).standard_normal((_BANK, _BANK)).astype(np.float32)


@lru_cache(maxsize=64)
def _smooth(sigma: float) -> np.ndarray:
    """The bank, low-passed at ``sigma`` px and brought back to unit variance."""
    if sigma <= 0:
        return _bank()
    out = cv2.GaussianBlur(_bank(), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return out / out.std()


def noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """A 256x256 piece of unit-variance noise, correlated over ``sigma`` px (in steps of 0.25)."""
    bank = _smooth(round(sigma * 4) / 4)
    top, left = rng.integers(0, _BANK - SIZE, 2)
    piece = bank[top : top + SIZE, left : left + SIZE]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    return piece.T if rng.random() < 0.5 else piece


def soft(distance: np.ndarray, width: float = 0.008) -> np.ndarray:
    """A mask that is 1 where ``distance`` is negative, 0 where positive, with a linear edge of ``width``."""
    return np.clip(0.5 - distance / (2 * width), 0, 1)


def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, wx: float, wy: float) -> np.ndarray:
    """A Gaussian hill of height 1 at (cx, cy) with standard deviations wx and wy."""
    out: np.ndarray = cv2.exp(-0.5 * (((x - cx) / wx) ** 2 + ((y - cy) / wy) ** 2))
    return out


def over(below: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lays ``colour`` ([3] or planes [3, H, W]) with opacity ``alpha`` [H, W] over planes [3, H, W]."""
    if colour.ndim == 1:
        colour = colour.astype(np.float32)[:, None, None]
    return below + alpha * (colour - below)
