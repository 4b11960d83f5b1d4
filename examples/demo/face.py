"""Draws one demo face: a lit height map, skin with texture, eyes, brows, nose, mouth and hair."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from examples.demo.attributes import HAIR_STYLES, Identity, Scene
from examples.demo.texture import SIZE, bump, grid, noise, over, soft


@dataclass(frozen=True)
class Portrait:
    """A drawn head, before any camera: colours, opacity, five landmarks and the parts map.

    Attributes:
        rgb: float32 [256, 256, 3] in [0, 1].
        alpha: float32 [256, 256], opacity over the background.
        landmarks: float32 [5, 2] in px: eyes (image left, right), nose tip, mouth corners (left, right).
        parts: float32 [256, 256, 4]: skin, hair, eyes and brows, mouth.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    landmarks: np.ndarray
    parts: np.ndarray


class _Pose:
    """Where things of the head come to lie: a turn shifts what stands out of the face plane the most."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        x, y = grid()
        c, s = math.cos(scene.roll), math.sin(scene.roll)
        x, y = (x - scene.shift[0]) / scene.scale, (y - scene.shift[1]) / scene.scale
        self.x, self.y = (c * x + s * y).astype(np.float32), (-s * x + c * y).astype(np.float32)

    def at(self, x: float, y: float, depth: float) -> tuple[float, float]:
        """The drawn position of a point at (x, y) that stands ``depth`` out of the turning axis."""
        yaw, pitch = self.scene.yaw, self.scene.pitch
        return x * math.cos(yaw) + depth * math.sin(yaw), y * math.cos(pitch) + depth * math.sin(pitch)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Drawn position to px of the crop."""
        c, s = math.cos(self.scene.roll), math.sin(self.scene.roll)
        px = (c * x - s * y) * self.scene.scale + self.scene.shift[0]
        py = (s * x + c * y) * self.scene.scale + self.scene.shift[1]
        return (px + 1) * SIZE / 2 - 0.5, (py + 1) * SIZE / 2 - 0.5

    def window(self, x: float, y: float, reach: int) -> tuple[slice, slice]:
        """Rows and columns of the crop within ``reach`` px of a drawn position."""
        column, row = (round(float(p)) for p in self.pixel(x, y))
        return slice(max(row - reach, 0), row + reach), slice(max(column - reach, 0), column + reach)


def _head(who: Identity, pose: _Pose) -> tuple[np.ndarray, np.ndarray]:
    """The head's outline as a signed distance and its height map."""
    cx, cy = pose.at(0, 0.02, 0.12)
    x, y = pose.x - cx, pose.y - cy
    below = np.clip(y / who.face_height, 0, 1)
    width = who.face_width * (1 - who.jaw * below**2)
    radius2 = np.abs(x / width) ** 2.3 + np.abs(y / who.face_height) ** 2.4
    height = 0.62 * np.sqrt(np.clip(1.02 - radius2, 0.0, 1))
    return (np.sqrt(radius2) - 1) * 0.6, height


def _relief(who: Identity, pose: _Pose, height: np.ndarray) -> np.ndarray:
    """Adds brows, sockets, nose, cheeks, lips and chin to the height map."""
    x, y = pose.x, pose.y
    out = height.copy()
    for side in (-1, 1):
        ex, ey = pose.at(side * who.eye_x, who.eye_y, 0.42)
        out -= 0.07 * bump(x, y, ex, ey, 0.10, 0.065)
        out += 0.04 * bump(x, y, ex, ey - 0.12, 0.12, 0.045)
        kx, ky = pose.at(side * 0.33, 0.15, 0.38)
        out += 0.05 * bump(x, y, kx, ky, 0.13, 0.13)
        wx, wy = pose.at(side * who.nose_width * 0.8, who.eye_y + who.nose_length, 0.55)
        out += 0.05 * bump(x, y, wx, wy, 0.045, 0.04)
    for share in (0.35, 0.6, 0.85):
        nx, ny = pose.at(0, who.eye_y + share * who.nose_length, 0.5 + 0.1 * share)
        out += 0.055 * (0.6 + share) * bump(x, y, nx, ny, 0.045 + 0.03 * share, 0.075)
    tx, ty = pose.at(0, who.eye_y + who.nose_length, 0.66)
    out += 0.09 * bump(x, y, tx, ty, who.nose_width * 0.75, 0.055)
    mx, my = pose.at(0, who.mouth_y, 0.48)
    out += 0.035 * bump(x, y, mx, my, 0.15, 0.07)
    hx, hy = pose.at(0, 0.68, 0.40)
    out += 0.05 * bump(x, y, hx, hy, 0.12, 0.08)
    return out


def _light(scene: Scene, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse and specular light on a height map (Lambert and Blinn-Phong), each [H, W]."""
    step = 2.0 / SIZE
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / (8 * step))
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / (8 * step))
    inverse = 1 / np.sqrt(gx * gx + gy * gy + 1)
    lx, ly, lz = scene.light
    diffuse = np.clip((-gx * lx - gy * ly + lz) * inverse, 0, 1)
    half = scene.light + np.array([0, 0, 1], np.float32)
    hx, hy, hz = half / np.linalg.norm(half)
    gloss = np.clip((-gx * hx - gy * hy + hz) * inverse, 0, 1)
    for _ in range(4):  # to the 16th power
        gloss = gloss * gloss
    return diffuse, gloss


def _skin(who: Identity, pose: _Pose, rng: np.random.Generator) -> np.ndarray:
    """The skin's own colour [3, H, W]: tone, blotches, pores, freckles, wrinkles, beard shadow, cheeks."""
    x, y = pose.x, pose.y
    shade = 1 + who.blotches * noise(rng, 14) + who.pores * noise(rng, who.pore_scale)
    if who.wrinkles:
        wave = np.sin(55 * (y + 0.02 * noise(rng, 20)) + rng.uniform(0, 6))
        shade -= who.wrinkles * np.clip(wave - 0.4, 0, 1) * bump(x, y, 0, -0.45, 0.3, 0.11)
    if who.freckles:
        spots = np.clip(noise(rng, 1.5) - 1.5, 0, 1) * bump(x, y, 0, 0.08, 0.4, 0.16)
        shade -= who.freckles * spots
    colour = shade * who.skin[:, None, None]
    for side in (-1, 1):
        kx, ky = pose.at(side * 0.33, 0.17, 0.38)
        blush = who.redness * bump(x, y, kx, ky, 0.14, 0.11)
        colour = over(colour, who.skin * np.array([1.08, 0.72, 0.72]), np.clip(blush * 3, 0, 1))
    if who.stubble:
        where = np.clip(bump(x, y, 0, 0.68, 0.36, 0.2) + bump(x, y, 0, who.mouth_y - 0.09, 0.18, 0.04), 0, 1)
        grain = np.clip(0.55 + 0.35 * noise(rng, 0.75), 0, 1)
        colour = over(colour, who.hair * 0.7, who.stubble * where * grain)
    return colour


def _draw_eye(
    who: Identity, scene: Scene, pose: _Pose, side: int, rgb: np.ndarray, parts: np.ndarray
) -> None:
    """Draws one eye with its brow, in place, in the small window that can hold it."""
    ex, ey = pose.at(side * who.eye_x, who.eye_y, 0.45)
    window = pose.window(ex, ey, 46)
    x, y = pose.x[window] - ex, pose.y[window] - ey
    y = y + side * who.eye_tilt * x
    out = rgb[(slice(None), *window)]
    lid = who.eye_height * np.clip(1 - (x / who.eye_width) ** 2, 0, 1)
    opening = soft(np.maximum(np.abs(x) - who.eye_width, np.maximum(y - lid * 0.8, -y - lid)))
    look, radius = scene.gaze * who.eye_width, 0.058
    around = np.hypot(x - look, y + 0.005)
    eye = np.zeros_like(out) + np.array([0.86, 0.84, 0.83], np.float32)[:, None, None]
    eye = over(eye, who.iris * 0.45, soft(around - radius, 0.006))
    eye = over(eye, who.iris * 1.25, soft(around - radius * 0.82, 0.012))
    eye = over(eye, np.full(3, 0.02), soft(around - radius * 0.42, 0.006))
    glint = np.hypot(x - look - 0.02 * scene.light[0], y + 0.02 - 0.01 * scene.light[1])
    eye = over(eye, np.ones(3), soft(glint - 0.011, 0.006))
    drawn = over(out, eye * (0.75 + 0.25 * soft(-(y + lid * 0.4), 0.03)), opening)
    lash = soft(np.abs(y + lid) - 0.009, 0.008) * soft(np.abs(x) - who.eye_width * 1.05)
    drawn = over(drawn, who.hair * 0.3, 0.8 * lash)
    crease = soft(np.abs(y + lid + 0.035) - 0.004, 0.012) * soft(np.abs(x) - who.eye_width, 0.03)
    drawn = drawn * (1 - 0.22 * crease)
    arch = -who.brow_gap - who.brow_arch * (1 - (x / 0.16) ** 2)
    brow = soft(np.abs(y - arch) - who.brow_thickness * (1 - 0.4 * side * x / 0.16), 0.014)
    brow = brow * soft(np.abs(x) - 0.155, 0.02)
    drawn = over(drawn, who.hair * 0.6, 0.85 * brow)
    if who.glasses:
        ring = np.abs((np.abs(x / 0.19) ** 3 + np.abs((y - 0.02) / 0.14) ** 3) ** (1 / 3) - 1) * 0.15
        drawn = over(drawn, np.full(3, 0.07), 0.9 * soft(ring - who.glasses / 2, 0.006))
    out[:] = drawn
    parts[2][window] = np.maximum(parts[2][window], np.maximum(opening, brow))


def _draw_nose_and_mouth(
    who: Identity, scene: Scene, pose: _Pose, rgb: np.ndarray, parts: np.ndarray
) -> None:
    """Draws nostrils and lips, closed or slightly open, in place."""
    for side in (-1, 1):
        nx, ny = pose.at(side * who.nose_width * 0.45, who.eye_y + who.nose_length + 0.045, 0.56)
        window = pose.window(nx, ny, 14)
        out = rgb[(slice(None), *window)]
        hole = bump(pose.x[window], pose.y[window], nx, ny, 0.022, 0.012)
        out[:] = over(out, who.skin * 0.22, np.clip(hole * 1.1, 0, 0.85))
    mx, my = pose.at(0, who.mouth_y, 0.5)
    window = pose.window(mx, my, 52)
    x, y = pose.x[window] - mx, pose.y[window] - my
    out = rgb[(slice(None), *window)]
    arc = np.clip(1 - (x / who.mouth_width) ** 2, 0, 1)
    root, gap = np.sqrt(arc), scene.mouth_open * arc
    bow = 1 - 0.35 * cv2.exp(-0.5 * (x / 0.03) ** 2)
    lips = np.maximum(-y - gap - who.lip_upper * 1.6 * root * bow, y - gap - who.lip_lower * 1.5 * root)
    mask = soft(np.maximum(lips, np.abs(x) - who.mouth_width), 0.012)
    drawn = over(out, np.clip(1 + 3.6 * y, 0.75, 1.2) * who.lip[:, None, None], 0.85 * mask)
    line = soft(np.abs(y) - gap - 0.006, 0.008) * soft(np.abs(x) - who.mouth_width * 0.97)
    drawn = over(drawn, who.lip * 0.25, line)
    if scene.mouth_open > 0.02:
        teeth = soft(np.abs(y + gap * 0.35) - gap * 0.5, 0.008) * soft(
            np.abs(x) - who.mouth_width * 0.72, 0.02
        )
        drawn = over(drawn, np.array([0.9, 0.88, 0.84]), 0.9 * teeth)
    out[:] = drawn
    parts[3][window] = mask


def _hair(
    who: Identity, pose: _Pose, rng: np.random.Generator, outline: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The hair's colour [3, H, W] and its mask in front of the head [H, W]."""
    style = HAIR_STYLES[who.hair_style]
    cx, cy = pose.at(0, 0, 0.1)
    x, y = pose.x - cx, pose.y - cy
    strands = cv2.GaussianBlur(noise(rng, 0.75), (0, 0), sigmaX=0.6, sigmaY=5)
    colour = np.clip(0.9 + strands * (0.2 / float(strands.std())), 0.3, 1.6) * who.hair[:, None, None]
    if style == "bald":
        return colour, np.zeros_like(x)
    wave, part = 0.03 * noise(rng, 6), rng.uniform(-0.3, 0.3)
    line = who.hairline + 0.35 * (x - part) ** 2 + wave
    if style == "fringe":
        line = np.where(x < part, line + 0.16, line + 0.05 * (x - part) + 0.08)
    above = soft(y - line, 0.03) * soft(outline - rng.uniform(0.04, 0.10), 0.03)
    sides = soft(0.86 * who.face_width - np.abs(x) + 0.5 * wave, 0.03) * soft(outline - 0.06, 0.03)
    sides = sides * soft(y - (1.2 if style == "long" else -0.1), 0.05)
    return colour, np.maximum(above, sides)


def draw_portrait(who: Identity, scene: Scene) -> Portrait:
    """Draws a person in a scene's pose and light, without background."""
    rng = np.random.default_rng([who.texture_seed, 1])
    pose = _Pose(scene)
    x, y = pose.x, pose.y
    parts = np.zeros((4, SIZE, SIZE), np.float32)
    outline, height = _head(who, pose)
    head = soft(outline, 0.012)
    diffuse, gloss = _light(scene, _relief(who, pose, height))

    face = _skin(who, pose, rng)
    _draw_nose_and_mouth(who, scene, pose, face, parts)
    for side in (-1, 1):
        _draw_eye(who, scene, pose, side, face, parts)
    lit = (scene.ambient + (1.15 - scene.ambient) * diffuse) * scene.light_colour[:, None, None]
    face = face * lit + scene.gloss * gloss

    long = HAIR_STYLES[who.hair_style] == "long"
    hair, front = _hair(who, pose, rng, outline)
    hair = hair * (0.55 + 0.5 * lit)
    back = soft(outline - 0.16, 0.04) if long else np.zeros_like(x)
    if long:
        back = np.maximum(back, soft(np.abs(x) - 0.72 - 0.04 * noise(rng, 8), 0.03) * soft(-y, 0.05))
    neck = soft(np.abs(x) - 0.36 - 0.1 * np.clip(y - 0.7, 0, 1), 0.02) * soft(0.4 - y, 0.02)
    clothes = soft(0.98 - 0.25 * np.clip(1 - (x / 1.1) ** 2, 0, 1) - y, 0.02)

    rgb = over(hair * 0.6, who.skin[:, None, None] * (0.37 + 0.25 * lit), neck)
    rgb = over(rgb, scene.clothes[:, None, None] * (1 + 0.08 * noise(rng, 2)), clothes)
    rgb = over(over(rgb, face, head), hair, front)
    alpha = np.maximum.reduce([back, neck, clothes, head, front])
    parts[0] = head * (1 - front) * (1 - parts[2]) * (1 - parts[3])
    parts[1] = np.maximum(front, back * (1 - head))

    points = [pose.at(s * who.eye_x, who.eye_y, 0.45) for s in (-1, 1)]
    points.append(pose.at(0, who.eye_y + who.nose_length, 0.66))
    points += [pose.at(s * who.mouth_width, who.mouth_y, 0.5) for s in (-1, 1)]
    landmarks = np.array([pose.pixel(*p) for p in points], np.float32)
    return Portrait(
        np.ascontiguousarray(np.clip(rgb, 0, 1.2).transpose(1, 2, 0)),
        alpha,
        landmarks,
        np.ascontiguousarray(parts.transpose(1, 2, 0)),
    )
