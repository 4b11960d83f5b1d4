"""Which frames of a video are used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

SAMPLINGS = ("uniform", "first")


def frame_order(path: str) -> tuple[Any, ...]:
    """Sort key of a frame path: its stem as a number, whatever the separator.

    Stems that are no number come after, by the numbers in them: ``frame_2`` before ``frame_10``.
    """
    stem = re.split(r"[\\/]", path)[-1].rsplit(".", 1)[0]
    if stem.isdecimal():
        return 0, int(stem), path
    parts = re.split(r"(\d+)", stem)  # text and numbers by turns, so that equal places compare
    return 1, [int(part) if position % 2 else part for position, part in enumerate(parts)], path


def choose_frames(total: int, asked: int, sampling: str) -> list[int]:
    """Positions of the frames to use of a video whose frames are in order of time.

    ``uniform`` takes the first frame of each of ``asked`` equal stretches, so the whole video is seen;
    ``first`` takes the first frames, which is what DeepfakeBench does under the name of even spacing (its
    step is always 1).

    Args:
        total: Frames the video has.
        asked: Frames wanted; a shorter video gives all it has.
        sampling: ``uniform`` or ``first``.

    Returns:
        ``min(total, asked)`` positions, increasing, without repetition.

    Raises:
        ValueError: Unknown sampling, or fewer than one frame asked for.
    """
    if asked < 1:
        raise ValueError(f"frames per video: got {asked}, expected 1 or more")
    if sampling not in SAMPLINGS:
        raise ValueError(f"frame sampling: got {sampling!r}, expected one of {SAMPLINGS}")
    if asked >= total:
        return list(range(total))
    if sampling == "first":
        return list(range(asked))
    return [position * total // asked for position in range(asked)]


def take_frames(paths: Sequence[str], asked: int, sampling: str) -> list[str]:
    """The sampled paths of one video, in order of time."""
    ordered = sorted(paths, key=frame_order)
    return [ordered[position] for position in choose_frames(len(ordered), asked, sampling)]


def ends_and_middle(paths: Sequence[str]) -> tuple[str, ...]:
    """The first, middle and last frame of a video, by which its look is known; fewer of a short one."""
    return tuple(dict.fromkeys(paths[place] for place in (0, len(paths) // 2, -1))) if paths else ()
