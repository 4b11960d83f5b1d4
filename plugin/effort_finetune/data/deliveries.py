"""How a platform would deliver a picture: the table behind ``predict --stability``, one entry each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from effort_finetune.core.seeding import derive
from effort_finetune.data import picture_changes as change


@dataclass(frozen=True)
class Delivery:
    """One entry.

    Attributes:
        title: What it is.
        apply: Takes ``uint8[H, W, 3]``, a value and a generator; gives a picture, perhaps of another size.
        value: Its number.
        of_videos: Whether only frames of a video are delivered so.
    """

    title: str
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    value: float
    of_videos: bool = False


def _shorter_side(image: np.ndarray, side: float, _: np.random.Generator) -> np.ndarray:
    factor = side / min(image.shape[:2])
    return change.there_and_back(image, round(image.shape[1] * factor), round(image.shape[0] * factor))


DELIVERIES: Mapping[str, Delivery] = {
    "jpeg90": Delivery("JPEG of quality 90", change.through_jpeg, 90),
    "jpeg70": Delivery("JPEG of quality 70", change.through_jpeg, 70),
    "jpeg50": Delivery("JPEG of quality 50", change.through_jpeg, 50),
    "webp80": Delivery("WebP of quality 80", change.through_webp, 80),
    "720px": Delivery("resized to 720 px and back", _shorter_side, 720),
    "480px": Delivery("resized to 480 px and back", _shorter_side, 480),
    "360px": Delivery("resized to 360 px and back", _shorter_side, 360),
    "screenshot": Delivery("edges cut off, shown smaller", change.cut_edges, 0),
    "h264": Delivery("H.264 of CRF 28", change.through_h264, 28, of_videos=True),
}


def delivered(image: np.ndarray, name: str, *, seed: int, item: str, of_video: bool) -> np.ndarray | None:
    """One picture as it arrives.

    Args:
        image: ``uint8[H, W, 3]``, RGB.
        name: Of :data:`DELIVERIES`.
        seed: The run's seed.
        item: What tells this picture from others; the frames of one video share it, and so the draw.
        of_video: Whether it is a frame of a video.

    Returns:
        ``uint8[H', W', 3]``; None where a delivery does not apply: nobody makes a small picture larger to
        send it, a picture is no video, and H.264 needs PyAV.
    """
    entry = DELIVERIES[name]
    if entry.of_videos and not (of_video and change.video_codec_is_there()):
        return None
    if entry.apply is _shorter_side and min(image.shape[:2]) <= entry.value:
        return None
    return entry.apply(image, entry.value, np.random.default_rng(derive(seed, "delivery", name, item)))
