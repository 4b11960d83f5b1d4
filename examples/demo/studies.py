"""Real demo faces with every attribute known: what the demo tower learns to see before it hears of forgeries.

No forged image is made here. Attributes are global (who, which scene, which camera) and local: the parts of
the head, the colour and fine texture of each patch, and capture conditions that differ over the image (a
patch out of focus, under tinted light, or with coarser grain).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from examples.demo.attributes import (
    as_numbers,
    draw_camera,
    draw_delivery,
    draw_identity,
    draw_scene,
)
from examples.demo.clip import capture, deliver, record
from examples.demo.texture import SIZE, noise

LOCAL = (
    "skin",
    "hair",
    "eye",
    "mouth",
    "red",
    "green",
    "blue",
    "fine",
    "coarse",
    "focus",
    "tint_r",
    "tint_g",
    "tint_b",
    "grain",
)


@dataclass(frozen=True)
class Studies:
    """Images with their attributes.

    Attributes:
        images: uint8 [N, R, R, 3], RGB at the tower's resolution.
        attributes: float32 [N, G], ``attributes.as_numbers`` of identity, scene, camera, delivery.
        local: float32 [N, P, P, len(LOCAL)], the mean of each local attribute over each patch.
    """

    images: np.ndarray
    attributes: np.ndarray
    local: np.ndarray


def _blob(rng: np.random.Generator) -> np.ndarray:
    """A soft ellipse [256, 256] somewhere in the middle of the crop."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    centre = tuple(int(c) for c in rng.normal(SIZE / 2, 45, 2).clip(20, SIZE - 20))
    axes = tuple(int(a) for a in rng.uniform(14, 62, 2))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    return cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(1, 9)))


def _condition(frame: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Applies local capture conditions to a frame; returns it with their maps [256, 256, 5]."""
    maps = np.zeros((SIZE, SIZE, 5), np.float32)
    if rng.random() < 0.55:
        mask, sigma = _blob(rng), rng.uniform(0.6, 2.5)
        frame = frame + mask[..., None] * (cv2.GaussianBlur(frame, (0, 0), sigma) - frame)
        maps[..., 0] = mask * min(sigma, 1.6)
    if rng.random() < 0.45:
        mask, gain = _blob(rng), rng.choice([-1, 1], 3) * rng.uniform(0.03, 0.2, 3)
        tint = (mask[..., None] * gain).astype(np.float32)
        frame = np.clip(frame * (1 + tint), 0, 1)
        maps[..., 1:4] = tint * 8
    if rng.random() < 0.35:
        mask, sigma = _blob(rng), rng.uniform(0.015, 0.05)
        frame = np.clip(frame + (mask * sigma * noise(rng, rng.uniform(0, 1)))[..., None], 0, 1)
        maps[..., 4] = mask * sigma * 30
    return frame, maps


def _texture(frame: np.ndarray) -> np.ndarray:
    """Log energy of the finest two octaves of a clean frame, [256, 256, 2]."""
    grey = frame @ np.array([0.299, 0.587, 0.114], np.float32)
    out = []
    for sigma in (1.0, 2.0):
        smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
        energy = cv2.GaussianBlur((grey - smooth) ** 2, (0, 0), 4)
        out.append(np.log(energy + 1e-6) / 4)
        grey = smooth
    return np.stack(out, -1)


def draw_studies(
    seed: int, first: int, last: int, *, resolution: int, patches: int, frames: int = 4
) -> Studies:
    """Draws ``frames`` pictures each of people ``first`` to ``last`` (exclusive), each by another camera.

    Args:
        seed: with the person's number it fixes everything.
        first: number of the first person.
        last: one past the last.
        resolution: side of the images in px.
        patches: side of the grid of local attributes.
        frames: pictures per person.
    """
    images, numbers, local = [], [], []
    for person in range(first, last):
        rng = np.random.default_rng([seed, 7, person])
        who, scene = draw_identity(rng), draw_scene(rng)
        clip = record(who, scene, frames, rng)
        for frame, parts in zip(clip.frames, clip.parts, strict=True):
            camera, way = draw_camera(rng), draw_delivery(rng)
            shot, maps = _condition(capture(frame, camera, rng), rng)
            image = deliver(shot, way)
            images.append(cv2.resize(image, (resolution, resolution), interpolation=cv2.INTER_CUBIC))
            numbers.append([v for record_ in (who, scene, camera, way) for v in as_numbers(record_).values()])
            dense = np.concatenate([parts, frame, _texture(frame), maps], -1)
            means = [
                cv2.resize(plane, (patches, patches), interpolation=cv2.INTER_AREA)
                for plane in cv2.split(dense)
            ]
            local.append(np.stack(means, -1))
    return Studies(np.stack(images), np.array(numbers, np.float32), np.stack(local))
