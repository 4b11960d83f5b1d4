"""What a demo face, scene and camera are made of, and how each attribute is drawn.

Every attribute comes from one ``numpy.random.Generator``; the same generator state gives the same face.
Lengths are in half crops: the crop spans [-1, 1] in x and y, y grows downwards.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

# Skin, hair and iris colours lie on lines between these anchors (RGB in [0, 1]): no two people share one.
_SKIN = np.array(
    [[0.95, 0.78, 0.68], [0.87, 0.66, 0.52], [0.74, 0.52, 0.38], [0.55, 0.36, 0.25], [0.38, 0.25, 0.18]]
)
_HAIR = np.array(
    [[0.06, 0.05, 0.05], [0.20, 0.12, 0.07], [0.42, 0.25, 0.12], [0.78, 0.62, 0.36], [0.55, 0.53, 0.52]]
)
_IRIS = np.array(
    [[0.16, 0.09, 0.05], [0.36, 0.22, 0.10], [0.30, 0.40, 0.22], [0.30, 0.45, 0.62], [0.42, 0.47, 0.50]]
)

HAIR_STYLES = ("short", "fringe", "long", "bald")
BACKGROUNDS = ("gradient", "blobs", "panels", "noise")


@dataclass(frozen=True)
class Identity:
    """A person: shape, colours and skin. Nothing here changes between the videos of one person."""

    skin: np.ndarray
    redness: float
    pores: float
    pore_scale: float
    blotches: float
    freckles: float
    wrinkles: float
    stubble: float
    face_width: float
    face_height: float
    jaw: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris: np.ndarray
    brow_gap: float
    brow_thickness: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lip_upper: float
    lip_lower: float
    lip: np.ndarray
    hair: np.ndarray
    hair_style: int
    hairline: float
    glasses: float
    texture_seed: int


@dataclass(frozen=True)
class Scene:
    """A recording of a person: pose, light, surroundings."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    shift: np.ndarray
    light: np.ndarray
    light_colour: np.ndarray
    ambient: float
    gloss: float
    gaze: float
    mouth_open: float
    background: int
    background_colours: np.ndarray
    background_blur: float
    clothes: np.ndarray
    texture_seed: int


@dataclass(frozen=True)
class Camera:
    """Lens and sensor: what a recording goes through before anyone can edit it."""

    lens_blur: float
    noise: float
    noise_grain: float
    gain: np.ndarray
    gamma: float
    vignette: float


@dataclass(frozen=True)
class Delivery:
    """What a published video went through: grading, scaling, sharpening, compression.

    Drawn anew, and alike, for every real and every fake video.
    """

    black: float
    gain: np.ndarray
    gamma: float
    saturation: float
    softness: float
    sharpen: float
    jpeg_quality: int


def _between(rng: np.random.Generator, anchors: np.ndarray, jitter: float) -> np.ndarray:
    """A colour on the polyline through ``anchors``, shifted by a normal draw of width ``jitter``."""
    at = rng.uniform(0, len(anchors) - 1)
    low = min(int(at), len(anchors) - 2)
    colour = anchors[low] + (at - low) * (anchors[low + 1] - anchors[low])
    return np.clip(colour * (1 + rng.normal(0, jitter, 3)), 0.02, 1.0).astype(np.float32)


def draw_identity(rng: np.random.Generator) -> Identity:
    """Draws a person."""
    skin = _between(rng, _SKIN, 0.05)
    lip = np.clip(
        skin * rng.uniform(0.7, 0.95) * np.array([1.05, 0.72, 0.74]) + rng.normal(0, 0.03, 3), 0.05, 1
    )
    has_stubble = rng.random() < 0.35
    return Identity(
        skin=skin,
        redness=rng.uniform(0.0, 0.12),
        pores=rng.uniform(0.02, 0.11),
        pore_scale=rng.uniform(0.8, 2.2),
        blotches=rng.uniform(0.01, 0.06),
        freckles=rng.uniform(0.1, 0.5) if rng.random() < 0.3 else 0.0,
        wrinkles=rng.uniform(0.02, 0.10) if rng.random() < 0.4 else 0.0,
        stubble=rng.uniform(0.15, 0.5) if has_stubble else 0.0,
        face_width=rng.uniform(0.54, 0.66),
        face_height=rng.uniform(0.80, 0.92),
        jaw=rng.uniform(0.10, 0.42),
        eye_x=rng.uniform(0.24, 0.30),
        eye_y=rng.uniform(-0.22, -0.13),
        eye_width=rng.uniform(0.105, 0.145),
        eye_height=rng.uniform(0.045, 0.075),
        eye_tilt=rng.uniform(-0.18, 0.18),
        iris=_between(rng, _IRIS, 0.1),
        brow_gap=rng.uniform(0.10, 0.16),
        brow_thickness=rng.uniform(0.014, 0.034),
        brow_arch=rng.uniform(0.0, 0.05),
        nose_length=rng.uniform(0.26, 0.36),
        nose_width=rng.uniform(0.075, 0.125),
        mouth_y=rng.uniform(0.38, 0.47),
        mouth_width=rng.uniform(0.17, 0.27),
        lip_upper=rng.uniform(0.020, 0.045),
        lip_lower=rng.uniform(0.028, 0.060),
        lip=lip.astype(np.float32),
        hair=_between(rng, _HAIR, 0.06),
        hair_style=int(rng.choice(len(HAIR_STYLES), p=[0.35, 0.25, 0.3, 0.1])),
        hairline=rng.uniform(-0.66, -0.48),
        glasses=rng.uniform(0.012, 0.024) if rng.random() < 0.15 else 0.0,
        texture_seed=int(rng.integers(2**31)),
    )


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draws a recording."""
    azimuth, elevation = rng.uniform(-1.2, 1.2), rng.uniform(-0.2, 0.9)
    light = np.array(
        [np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    warmth = rng.normal(0, 0.07)
    muted = rng.uniform(0.0, 0.75)
    colours = rng.uniform(0.08, 0.92, (7, 3))
    colours += muted * (colours.mean(1, keepdims=True) - colours)
    return Scene(
        yaw=rng.uniform(-0.35, 0.35),
        pitch=rng.uniform(-0.15, 0.15),
        roll=rng.normal(0, 0.04),
        scale=rng.uniform(1.02, 1.14),
        shift=rng.normal(0, 0.015, 2).astype(np.float32),
        light=light.astype(np.float32),
        light_colour=np.array([1 + warmth, 1.0, 1 - warmth], np.float32),
        ambient=rng.uniform(0.35, 0.65),
        gloss=rng.uniform(0.0, 0.18),
        gaze=rng.uniform(-0.25, 0.25),
        mouth_open=rng.uniform(0.015, 0.055) if rng.random() < 0.4 else 0.0,
        background=int(rng.integers(len(BACKGROUNDS))),
        background_colours=colours[:6].astype(np.float32),
        background_blur=rng.uniform(0.5, 6.0),
        clothes=colours[6].astype(np.float32),
        texture_seed=int(rng.integers(2**31)),
    )


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draws a camera."""
    return Camera(
        lens_blur=rng.uniform(0.35, 0.95),
        noise=rng.uniform(0.006, 0.026),
        noise_grain=rng.uniform(0.0, 0.7),
        gain=(rng.uniform(0.9, 1.1) * (1 + rng.normal(0, 0.02, 3))).astype(np.float32),
        gamma=rng.uniform(0.9, 1.15),
        vignette=rng.uniform(0.0, 0.25),
    )


def draw_delivery(rng: np.random.Generator) -> Delivery:
    """Draws a video's way to its viewer."""
    return Delivery(
        black=rng.uniform(0.0, 0.06),
        gain=(rng.uniform(0.88, 1.1) * (1 + rng.normal(0, 0.025, 3))).astype(np.float32),
        gamma=rng.uniform(0.88, 1.15),
        saturation=rng.uniform(0.75, 1.2),
        softness=rng.uniform(0.2, 0.75),
        sharpen=rng.uniform(0.0, 1.0),
        jpeg_quality=int(rng.integers(76, 97)),
    )


def as_numbers(record: Identity | Scene | Camera | Delivery) -> dict[str, float]:
    """Flattens a record into named numbers (``skin.0``, ...), leaving seeds out.

    They are the targets on which the demo tower is first trained.
    """
    out: dict[str, float] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name.endswith("seed"):
            continue
        for i, number in enumerate(np.atleast_1d(value).ravel()):
            out[f"{field.name}.{i}" if np.ndim(value) else field.name] = float(number)
    return out
