"""Frames of a video file, or of a folder of images that stands for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.data.sampling import frame_order
from effort_finetune.data.walk import below, images

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})


def find_videos(folder: Path) -> list[Path]:
    """Video files, and folders of images, anywhere under a folder, in order of their paths."""
    found = []
    for path in below(folder):
        is_video = path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES
        if is_video or (path.is_dir() and images(path)):
            found.append(path)
    return found


def read_frames(
    path: Path, *, count: int | None = None, every: int | None = None
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Frames of a video, read one after the other, so that their numbers are exact.

    Args:
        path: Video file or folder of images.
        count: This many, evenly spaced from the first to the last (the host's ``fixed_num_frames``).
        every: Or every n-th (the host's ``fixed_stride``).

    Yields:
        Number of the frame and ``uint8[H, W, 3]``, RGB; None where it cannot be decoded.

    Raises:
        UserError: The video cannot be opened, or has no frame.
        ValueError: Not exactly one of ``count`` and ``every``.
    """
    if (count is None) == (every is None):
        raise ValueError("give either count or every")
    stills = sorted((str(image) for image in images(path)), key=frame_order) if path.is_dir() else None
    total = len(stills) if stills is not None else _frame_count(path)
    wanted = frame_numbers(total, count) if count is not None else list(range(0, total, every or 1))
    if stills is None:
        yield from _read_video(path, wanted)
        return
    for number in wanted:
        # Not cv2.imread, which cannot open every name there is.
        data = np.fromfile(stills[number], dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        yield number, None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def frame_numbers(total: int, count: int) -> list[int]:
    """Numbers of ``count`` frames evenly spaced from the first to the last, each once."""
    return sorted({int(number) for number in np.linspace(0, total - 1, count)}) if total else []


def _open(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UserError(
            f"video {path} cannot be opened",
            got="a file that OpenCV cannot decode",
            expected="a video",
            next_step="convert it, for example with ffmpeg, or take it out",
        )
    return capture


def _frame_count(path: Path) -> int:
    """The number of frames there are; the container's own number is often too large, so they are counted."""
    capture = _open(path)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    if not count:
        raise UserError(
            f"video {path} has no frames",
            expected="at least one frame",
            next_step="take it out or fetch it again",
        )
    return count


def _read_video(path: Path, wanted: list[int]) -> Iterator[tuple[int, np.ndarray | None]]:
    capture = _open(path)
    try:
        position = -1
        for number in wanted:
            while position < number:
                capture.grab()
                position += 1
            done, image = capture.retrieve()
            yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if done else None
    finally:
        capture.release()
