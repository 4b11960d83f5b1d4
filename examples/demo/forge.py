"""Three forgery processes. Each edits captured frames; compression comes after, for real and fake alike.

A  ``swap``: another face, warped onto this one, colour-shifted, blended in through a wide soft mask.
B  ``reenact``: another person's mouth, made at a lower resolution, colour-matched, Laplacian-blended.
C  ``regenerate``: a patch of the face itself, put through a small resampling generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from examples.demo.texture import SIZE

Pair = tuple[np.ndarray, np.ndarray]
"""An edited frame, float32 [256, 256, 3], and the mask of what was edited, float32 [256, 256]."""


@dataclass(frozen=True)
class Footage:
    """Captured frames of a video, float32 [T, 256, 256, 3], and their landmarks, float32 [T, 5, 2] px."""

    frames: np.ndarray
    landmarks: np.ndarray


Forger = Callable[[Footage, Footage, np.random.Generator], list[Pair]]


def _align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The affine map (2x3) that brings points [n, 2] closest to others in the least-squares sense."""
    ones = np.c_[source, np.ones(len(source))]
    return np.linalg.lstsq(ones, target, rcond=None)[0].T.astype(np.float32)


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift (2x3) that bring two points [2, 2] onto two others."""
    a, b = source[1] - source[0], target[1] - target[0]
    ratio = complex(*b) / complex(*a)
    turn = np.array([[ratio.real, -ratio.imag], [ratio.imag, ratio.real]], np.float32)
    return np.c_[turn, target.mean(0) - turn @ source.mean(0)].astype(np.float32)


def _warp(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(frame, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def _outline(points: np.ndarray, blur: float) -> np.ndarray:
    """A filled polygon [n, 2] px as a mask with a Gaussian edge of ``blur`` px."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(mask, (0, 0), blur)


def _ring(
    centre: np.ndarray, axes: tuple[float, float], angle: float, power: float, wobble: np.ndarray
) -> np.ndarray:
    """A superellipse [48, 2] px whose radius varies by the harmonics ``wobble``."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    radius = 1 + sum(w * np.cos((k + 2) * t + 5 * w) for k, w in enumerate(wobble))
    x = axes[0] * radius * np.sign(c) * np.abs(c) ** (2 / power)
    y = axes[1] * radius * np.sign(s) * np.abs(s) ** (2 / power)
    return np.c_[x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)] + centre


def _tilt(points: np.ndarray) -> float:
    dx, dy = points[1] - points[0]
    return float(np.arctan2(dy, dx))


def _statistics(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [3] of an image under a mask."""
    weight = mask.ravel() / (mask.sum() + 1e-6)
    pixels = image.reshape(-1, 3)
    mean = weight @ pixels
    return mean, np.sqrt(np.maximum(weight @ pixels**2 - mean**2, 0)) + 1e-3


def _match_colours(image: np.ndarray, like: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gives ``image`` the channel means and deviations (within limits) of ``like`` under ``mask``."""
    (mean, spread), (wanted, wanted_spread) = _statistics(image, mask), _statistics(like, mask)
    gain = np.clip(wanted_spread / spread, 0.6, 1.5)
    return ((image - mean) * gain + wanted).astype(np.float32)


def _match_detail(image: np.ndarray, like: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scales the fine detail of ``image`` to the strength it has in ``like`` under ``mask``."""
    base, other = (cv2.GaussianBlur(i, (0, 0), 1.5) for i in (image, like))
    fine, wanted = image - base, like - other
    gain = np.clip(_statistics(wanted, mask)[1].mean() / _statistics(fine, mask)[1].mean(), 0.4, 3.0)
    return base + gain * fine


def swap(target: Footage, donor: Footage, rng: np.random.Generator) -> list[Pair]:
    """Family A: the donor's inner face over the target's, through a wide soft mask.

    Colours and fine detail are matched; then the colours are shifted, as by an imperfect correction.
    """
    # Tone curves per channel move the middle and leave black and white, which would tell on them, in place.
    curve = np.exp(rng.choice([-1, 1], 3) * rng.uniform(0.08, 0.22, 3)).astype(np.float32)
    size, power = rng.uniform(0.85, 1.15, 2), rng.uniform(2.0, 3.0)
    wobble, blur = rng.normal(0, 0.03, 3), rng.uniform(3.0, 8.0)
    out = []
    for frame, landmarks, other, points in zip(
        target.frames, target.landmarks, donor.frames, donor.landmarks, strict=True
    ):
        face = _warp(other, _align(points, landmarks))
        gaze = float(np.linalg.norm(landmarks[1] - landmarks[0]))
        centre = (landmarks[:2].mean(0) + landmarks[3:].mean(0)) / 2
        shape = _ring(centre, (0.88 * gaze * size[0], 1.02 * gaze * size[1]), _tilt(landmarks), power, wobble)
        mask = _outline(shape, blur)
        (mean, _), (own, _) = _statistics(face, mask), _statistics(frame, mask)
        tone = np.clip(np.log(own + 1e-3) / np.log(mean + 1e-3), 0.4, 2.5) * curve
        face = np.power(np.clip(face, 0, 1), tone, dtype=np.float32)
        face = np.clip(_match_detail(face, frame, mask), 0, 1)
        out.append((frame + mask[..., None] * (face - frame), mask))
    return out


def _laplacian_blend(below: np.ndarray, above: np.ndarray, mask: np.ndarray, levels: int) -> np.ndarray:
    """Burt and Adelson's blend: each frequency band through a mask as smooth as the band."""
    masks, pyramids = [mask], [[below], [above]]
    for _ in range(levels):
        masks.append(cv2.pyrDown(masks[-1]))
        for pyramid in pyramids:
            pyramid.append(cv2.pyrDown(pyramid[-1]))
    out = np.zeros((1, 1, 3), np.float32)
    for level in reversed(range(levels + 1)):
        bands = []
        for pyramid in pyramids:
            band = pyramid[level]
            if level < levels:
                band = band - cv2.pyrUp(pyramid[level + 1], dstsize=band.shape[1::-1])
            bands.append(band)
        mixed = bands[0] + masks[level][..., None] * (bands[1] - bands[0])
        out = mixed if level == levels else mixed + cv2.pyrUp(out, dstsize=mixed.shape[1::-1])
    return np.clip(out, 0, 1)


def reenact(target: Footage, donor: Footage, rng: np.random.Generator) -> list[Pair]:
    """Family B: the mouth of another person, generated at a lower resolution, blended band by band.

    As lip-sync forgeries do. The colours are matched; what is left is a patch softer than the skin around it.
    """
    corners = slice(3, 5)
    small, power = round(SIZE / rng.uniform(2.6, 4.0)), rng.uniform(2.5, 6.0)
    size, wobble, blur = rng.uniform(0.9, 1.3, 2), rng.normal(0, 0.02, 3), rng.uniform(1.0, 2.2)
    out = []
    for frame, landmarks, other, points in zip(
        target.frames, target.landmarks, donor.frames, donor.landmarks, strict=True
    ):
        patch = _warp(other, _similarity(points[corners], landmarks[corners]))
        patch = cv2.resize(patch, (small, small), interpolation=cv2.INTER_AREA)
        patch = cv2.resize(patch, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        gaze = float(np.linalg.norm(landmarks[1] - landmarks[0]))
        axes = (float(0.62 * gaze * size[0]), float(0.40 * gaze * size[1]))
        mask = _outline(_ring(landmarks[corners].mean(0), axes, _tilt(landmarks), power, wobble), blur)
        patch = np.clip(_match_colours(patch, frame, mask), 0, 1)
        out.append((_laplacian_blend(frame, patch, mask, 3), mask))
    return out


def regenerate(target: Footage, donor: Footage, rng: np.random.Generator) -> list[Pair]:
    """Family C: a patch of the face drawn anew at half size, its upsampling leaving a faint grid.

    The donor is not used: nothing of another person enters.
    """
    del donor
    anchor, grid_step = int(rng.integers(5)), int(rng.choice([2, 4]))
    size, wobble = rng.uniform(0.38, 0.62, 2), rng.normal(0, 0.08, 3)
    strength, blur = rng.uniform(0.02, 0.04), rng.uniform(1.5, 4.0)
    v, u = np.mgrid[0:SIZE, 0:SIZE]
    lattice = np.where((u % grid_step < grid_step / 2) ^ (v % grid_step < grid_step / 2), 1.0, -1.0)
    out = []
    for frame, landmarks in zip(target.frames, target.landmarks, strict=True):
        gaze = float(np.linalg.norm(landmarks[1] - landmarks[0]))
        axes = (float(gaze * size[0]), float(gaze * size[1]))
        mask = _outline(_ring(landmarks[anchor], axes, _tilt(landmarks), 2.2, wobble), blur)
        drawn = cv2.resize(frame, (SIZE // 2, SIZE // 2), interpolation=cv2.INTER_AREA)
        drawn = cv2.bilateralFilter(drawn, 5, 0.08, 2.0)
        drawn = cv2.resize(drawn, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        drawn = np.clip(drawn * (1 + strength * lattice[..., None]), 0, 1).astype(np.float32)
        out.append((frame + mask[..., None] * (drawn - frame), mask))
    return out


FORGERS: dict[str, Forger] = {"A": swap, "B": reenact, "C": regenerate}
