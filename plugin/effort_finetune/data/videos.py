"""Frames of a video file, or of pictures that are the frames of one."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.data.containers import describe_container
from effort_finetune.data.decode import MAX_PIXELS, read_picture
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.data.sampling import frame_order
from effort_finetune.data.several_pictures import Frame, holds_several, read_several


def read_frames(path: Path, *, count: int | None = None, every: int | None = None) -> Iterator[Frame]:
    """Frames of a video file, read one after the other, so that their numbers are exact.

    Args:
        path: Video file.
        count: This many, evenly spaced from the first to the last (the host's ``fixed_num_frames``).
        every: Or every n-th (the host's ``fixed_stride``).

    Raises:
        UserError: The file cannot be opened, or has no frame: it is broken, or whole and of a kind that is
            not decoded here, and then the command that converts it is given.
        ValueError: Not exactly one of ``count`` and ``every``.
    """
    if holds_several(path):
        try:
            yield from read_several(path, partial(_wanted, count=count, every=every))
        except Unreadable as error:
            raise UserError(f"video {visible(path)}", got=str(error), expected="an animation") from error
        return
    wanted = _wanted(_frame_count(path), count, every)
    capture = open_video(path)
    try:
        position = -1
        for number in wanted:
            while position < number:
                capture.grab()
                position += 1
            done, image = capture.retrieve()
            yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if done else "the decoder gives no picture"
    finally:
        capture.release()


def read_stills(
    paths: Sequence[Path], *, count: int | None = None, every: int | None = None
) -> Iterator[Frame]:
    """Pictures that are the frames of one video, in order of time whatever their names.

    Args:
        paths: The pictures; one that is alone may hold several.
        count: See :func:`read_frames`.
        every: See :func:`read_frames`.
    """
    ordered = sorted(map(str, paths), key=frame_order)
    if len(ordered) == 1 and holds_several(Path(ordered[0])):
        try:
            yield from read_several(Path(ordered[0]), partial(_wanted, count=count, every=every))
        except Unreadable as error:
            yield 0, str(error)
        return
    for number in _wanted(len(ordered), count, every):
        try:
            yield number, read_picture(ordered[number])
        except Unreadable as error:
            yield number, str(error)


def _wanted(total: int, count: int | None, every: int | None) -> Sequence[int]:
    if (count is None) == (every is None):
        raise ValueError("give either count or every")
    return frame_numbers(total, count) if count is not None else range(0, total, every or 1)


def frame_numbers(total: int, count: int) -> list[int]:
    """Numbers of ``count`` frames evenly spaced from the first to the last, each once."""
    return sorted({int(number) for number in np.linspace(0, total - 1, count)}) if total else []


def open_video(path: Path) -> cv2.VideoCapture:
    """Opens a video file with OpenCV; the caller releases it.

    Raises:
        UserError: It is no video that is decoded here, or its frames are too large.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UserError(f"video {visible(path)}", got="no regular file", expected="a video file")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():  # a build without FFmpeg
        capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise _undecodable(path, "it cannot be opened")
    width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        capture.release()
        raise UserError(
            f"video {visible(path)}", got=f"frames of {width} x {height} pixels",
            expected=f"at most {MAX_PIXELS} pixels", next_step="make it smaller, for example with ffmpeg",
        )  # fmt: skip
    return capture


def _frame_count(path: Path) -> int:
    """The number of frames there are; the container's own number is often too large, so they are counted."""
    capture = open_video(path)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    if not count:
        raise _undecodable(path, "it has no frames")
    return count


def _undecodable(path: Path, what: str) -> UserError:
    """The error of a file that gives no frame: whole or broken."""
    container, whole = describe_container(path)
    if container is None:
        return UserError(
            f"video {visible(path)}: {what}", got="a file in no known container, or a damaged one",
            expected="a video", next_step="take it out or fetch it again",
        )  # fmt: skip
    if not whole:
        return UserError(
            f"video {visible(path)}: {what}", got=f"a {container} file that is cut off or damaged",
            next_step="fetch it again",
        )  # fmt: skip
    command = (
        f"ffmpeg -i {shlex.quote(path.name)} -c:v libx264 -crf 10 {shlex.quote(path.stem + '_h264.mp4')}"
    )
    return UserError(
        f"video {visible(path)}: {what}", got=f"a whole {container} file whose codec is not known here",
        expected="a codec that OpenCV decodes", next_step=f"convert it: {command}",
    )  # fmt: skip
