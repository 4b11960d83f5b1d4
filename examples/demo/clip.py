"""A demo video: one person in one scene, moving a little from frame to frame, seen by a camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from examples.demo.attributes import BACKGROUNDS, Camera, Delivery, Identity, Scene
from examples.demo.face import draw_portrait
from examples.demo.texture import SIZE, grid, noise

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Clip:
    """Frames before any camera, with their landmarks.

    Attributes:
        frames: float32 [T, 256, 256, 3] in about [0, 1].
        landmarks: float32 [T, 5, 2] in px.
        parts: float32 [T, 256, 256, 4] as in ``face.Portrait``.
    """

    frames: np.ndarray
    landmarks: np.ndarray
    parts: np.ndarray


def _background(scene: Scene) -> np.ndarray:
    """The wall, room or street behind the person, float32 [256, 256, 3]."""
    rng = np.random.default_rng([scene.texture_seed, 2])
    x, y = grid()
    colours = scene.background_colours
    kind = BACKGROUNDS[scene.background]
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + 0.5 * (np.cos(angle) * x + np.sin(angle) * y), 0, 1)
    out = colours[0] + ramp[..., None] * (colours[1] - colours[0]) * 0.6
    if kind == "blobs":
        for colour in colours[2:]:
            cx, cy, r = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.15, 0.5)
            alpha = np.clip(1.2 - np.hypot(x - cx, y - cy) / r, 0, 1)[..., None]
            out = out + alpha * (colour - out)
    elif kind == "panels":
        out = np.ascontiguousarray(out)
        for _ in range(9):
            left, top = rng.integers(-20, SIZE, 2)
            wide, high = rng.integers(12, 70), rng.integers(40, 160)
            colour = colours[rng.integers(len(colours))] * rng.uniform(0.6, 1.1)
            cv2.rectangle(
                out, (int(left), int(top)), (int(left + wide), int(top + high)), colour.tolist(), -1
            )
    elif kind == "noise":
        for sigma in (4, 16):
            out = out + 0.09 * noise(rng, sigma)[..., None] * rng.uniform(0.4, 1.6, 3).astype(np.float32)
    return np.clip(cv2.GaussianBlur(out.astype(np.float32), (0, 0), scene.background_blur), 0, 1)


def _talk(centre: np.ndarray, amount: float, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source coordinates of a frame: the inverse of ``affine`` plus a vertical stretch round the mouth."""
    inverse = cv2.invertAffineTransform(affine)
    u, v = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32))
    x = inverse[0, 0] * u + inverse[0, 1] * v + inverse[0, 2]
    y = inverse[1, 0] * u + inverse[1, 1] * v + inverse[1, 2]
    dx, dy = (x - centre[0]) / 34, (y - centre[1]) / 24
    pull = cv2.exp(-0.5 * (dx * dx + dy * dy)) * dy
    return x.astype(np.float32), (y - amount * pull).astype(np.float32)


def record(who: Identity, scene: Scene, frames: int, rng: np.random.Generator) -> Clip:
    """Renders ``frames`` frames: the head drifts, tilts and talks, the background moves less.

    Args:
        who: the person.
        scene: pose, light and surroundings.
        frames: how many frames.
        rng: draws the motion.
    """
    portrait, wall = draw_portrait(who, scene), _background(scene)
    phase, speed = rng.uniform(0, 6.28, 4), rng.uniform(0.4, 1.1, 4)
    reach = rng.uniform(0.3, 1.0, 4) * np.array([3.5, 2.5, 0.03, 4.0])
    layers = np.dstack([portrait.rgb * portrait.alpha[..., None], portrait.alpha])
    images, points, parts = [], [], []
    centre = portrait.landmarks[3:].mean(0)
    for t in range(frames):
        dx, dy, turn, open_ = reach * np.sin(phase + speed * t)
        affine = cv2.getRotationMatrix2D((SIZE / 2, SIZE * 0.8), float(np.degrees(turn)), 1 + 0.004 * dy)
        affine[:, 2] += dx, dy
        x, y = _talk(centre, float(open_), affine)
        moved = cv2.remap(layers, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        behind = np.roll(wall, (round(dy * 0.3), round(dx * 0.3)), (0, 1))
        images.append(moved[..., :3] + (1 - moved[..., 3:]) * behind)
        points.append(portrait.landmarks @ affine[:, :2].T + affine[:, 2])
        parts.append(cv2.remap(portrait.parts, x, y, cv2.INTER_LINEAR))
    return Clip(
        np.clip(np.stack(images), 0, 1.2).astype(np.float32),
        np.stack(points).astype(np.float32),
        np.stack(parts),
    )


def capture(frame: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Lens and sensor: blur, vignette, tone, noise. float32 [256, 256, 3] in [0, 1], before any editing."""
    out = cv2.GaussianBlur(frame, (0, 0), camera.lens_blur)
    x, y = grid()
    out = out * camera.gain * (1 - camera.vignette * 0.5 * (x * x + y * y))[..., None]
    out = np.power(np.clip(out, 0, 1), camera.gamma, dtype=np.float32)
    strength = camera.noise * (0.5 + np.sqrt(np.clip(out @ _LUMA, 0.02, 1)))
    out += cv2.merge([strength * noise(rng, camera.noise_grain) for _ in range(3)])
    return np.clip(out, 0, 1)


def deliver(frame: np.ndarray, way: Delivery) -> np.ndarray:
    """Grading, scaling, sharpening and JPEG, after any editing. Returns uint8 [256, 256, 3]."""
    grey = (frame @ _LUMA)[..., None]
    out = np.clip((grey + way.saturation * (frame - grey)) * way.gain, 0, 1)
    out = way.black + (1 - way.black) * np.power(out, way.gamma, dtype=np.float32)
    out = cv2.GaussianBlur(out, (0, 0), way.softness)
    out = out + way.sharpen * (out - cv2.GaussianBlur(out, (0, 0), 1.2))
    image = np.clip(out * 255 + 0.5, 0, 255).astype(np.uint8)
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, way.jpeg_quality])
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
