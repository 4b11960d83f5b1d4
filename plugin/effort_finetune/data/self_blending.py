"""Self-blended images: a face blended with a changed copy of itself, a fake of which no generator was seen.

After Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022, sections 3.2 and 3.3:
one of two copies gets colour and frequency changes, the source is resized and moved a little, and the two are
blended by a mask from the face's landmarks, deformed and softened. The ranges are this project's.
"""

from __future__ import annotations

import cv2
import numpy as np

#: How strongly the source shows, drawn with equal probability (section 3.3).
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
_POINTS_OF_FACE = 68  # of an 81-point model: without the forehead
_SHIFT = 20.0  # of 255, each colour channel
_HUE, _SATURATION, _BRIGHTNESS, _CONTRAST = 10.0, 0.3, 0.1, 0.1
_SCALE, _MOVE_X, _MOVE_Y = 0.05, 0.015, 0.03  # of the picture's side


def self_blended(image: np.ndarray, landmarks: np.ndarray, seed: int) -> np.ndarray | None:
    """Blends a face with itself.

    Args:
        image: ``uint8[H, W, 3]``, RGB.
        landmarks: ``float[N, 2]`` as (x, y) in its pixels, 68 or 81.
        seed: One seed always gives one result.

    Returns:
        ``uint8[H, W, 3]``; None where the landmarks span no face within the picture.
    """
    rng = np.random.default_rng(seed)
    mask = face_mask(image.shape[:2], landmarks, rng)
    if mask is None:
        return None
    source = target = image
    if rng.random() < 0.5:
        source = _changed(image, rng)
    else:
        target = _changed(image, rng)
    source = _moved(source, rng)
    weight = (mask * rng.choice(RATIOS))[..., None]
    blended = source.astype(np.float32) * weight + target.astype(np.float32) * (1 - weight)
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def face_mask(shape: tuple[int, ...], landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Draws a soft mask of a face: the landmarks' convex hull, deformed, then grown or shrunk and softened.

    Returns:
        ``float32[H, W]`` from 0 to 1; None where the hull has no area.
    """
    height, width = shape[:2]
    points = landmarks if rng.random() < 0.5 else landmarks[:_POINTS_OF_FACE]
    spread = 0.01 * np.ptp(landmarks, axis=0)
    points = (points + rng.normal(0, 1, points.shape) * spread).astype(np.float32)
    hull = cv2.convexHull(np.rint(points).astype(np.int32))
    mask: np.ndarray = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(mask, hull, 1.0)
    mask = _elastic(mask, rng)
    first, second = (_odd(rng.uniform(0.02, 0.1) * min(height, width)) for _ in range(2))
    # What the first filter softened is cut off, so that a wider first one shrinks the mask (section 3.3).
    mask = cv2.GaussianBlur(mask, (first, first), 0)
    mask = cv2.GaussianBlur((mask >= 1 - 1e-4).astype(np.float32), (second, second), 0)
    peak = float(mask.max())
    return mask / peak if peak > 0.05 else None


def _changed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes colours, then sharpens or loses detail."""
    shifted = np.clip(image.astype(np.float32) + rng.uniform(-_SHIFT, _SHIFT, 3), 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(shifted, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-_HUE, _HUE)) % 180  # OpenCV's hue has 180 steps
    hsv[..., 1] *= 1 + rng.uniform(-_SATURATION, _SATURATION)
    turned = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    mean = turned.mean()
    turned = (turned - mean) * (1 + rng.uniform(-_CONTRAST, _CONTRAST)) + mean
    turned = np.clip(turned + 255 * rng.uniform(-_BRIGHTNESS, _BRIGHTNESS), 0, 255)
    if rng.random() < 0.5:
        height, width = image.shape[:2]
        factor = int(rng.choice((2, 4)))
        small = cv2.resize(
            turned, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA
        )
        turned = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        amount = rng.uniform(0.5, 1.5)
        turned = turned + amount * (turned - cv2.GaussianBlur(turned, (0, 0), 1.0))
    return np.clip(np.rint(turned), 0, 255).astype(np.uint8)


def _moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Resizes about the centre and moves."""
    height, width = image.shape[:2]
    scale_x, scale_y = np.exp(rng.uniform(-_SCALE, _SCALE, 2))
    move_x, move_y = rng.uniform(-_MOVE_X, _MOVE_X) * width, rng.uniform(-_MOVE_Y, _MOVE_Y) * height
    matrix = np.array(
        [
            [scale_x, 0, (1 - scale_x) * width / 2 + move_x],
            [0, scale_y, (1 - scale_y) * height / 2 + move_y],
        ]
    )
    return cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def _elastic(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moves each pixel by a smooth random field."""
    height, width = mask.shape
    side = min(height, width)
    strength, smooth = rng.uniform(0.0, 0.04) * side, rng.uniform(0.08, 0.16) * side
    fields = []
    for _ in range(2):
        field = cv2.GaussianBlur(rng.uniform(-1, 1, mask.shape).astype(np.float32), (0, 0), smooth)
        fields.append(field * (strength / max(float(np.abs(field).max()), 1e-6)))
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(mask, x + fields[0], y + fields[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _odd(size: float) -> int:
    return max(3, round(size)) | 1
