"""One face over the frames of a video: found again by where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from effort_finetune.data.face_finder import Face

#: Frames lie seconds apart, so a face may have moved by up to its own size, and grown or shrunk by two.
MOST_MOVE, MOST_GROWTH = 1.0, 2.0


@dataclass
class Track:
    """One face.

    Attributes:
        items: What was kept of each frame it was seen in: frame, face, and the caller's own number.
    """

    items: list[tuple[int, Face, int]] = field(default_factory=list)

    @property
    def area(self) -> float:
        """Sum of its boxes' areas over the frames: large and often seen comes first."""
        return sum(face.area for _, face, _ in self.items)


def follow(frames: Sequence[tuple[int, Face, int]]) -> list[Track]:
    """Links faces of following frames, the nearest pairs first.

    Args:
        frames: Frame number, face and a number of the caller's, in order of time; several faces of a frame
            follow each other.

    Returns:
        Tracks, the largest first.
    """
    tracks: list[Track] = []
    by_frame: dict[int, list[tuple[int, Face, int]]] = {}
    for item in frames:
        by_frame.setdefault(item[0], []).append(item)
    for items in by_frame.values():
        pairs = sorted(
            (distance, t, i)
            for t, track in enumerate(tracks)
            for i, item in enumerate(items)
            if (distance := _distance(track.items[-1][1], item[1])) is not None
        )
        taken_tracks: set[int] = set()
        taken_items: set[int] = set()
        for _, t, i in pairs:
            if t not in taken_tracks and i not in taken_items:
                tracks[t].items.append(items[i])
                taken_tracks.add(t)
                taken_items.add(i)
        tracks += [Track([item]) for i, item in enumerate(items) if i not in taken_items]
    return sorted(tracks, key=lambda track: -track.area)


def _distance(one: Face, other: Face) -> float | None:
    """Distance of the middles in sides of a face; None where it cannot be the same face."""
    sides = [max(1.0, face.area) ** 0.5 for face in (one, other)]
    if max(sides) > MOST_GROWTH * min(sides):
        return None
    (x, y), (u, v) = (_middle(face) for face in (one, other))
    distance = float(((x - u) ** 2 + (y - v) ** 2) ** 0.5 / max(sides))
    return distance if distance <= MOST_MOVE else None


def _middle(face: Face) -> tuple[float, float]:
    left, top, right, bottom = face.box
    return (left + right) / 2, (top + bottom) / 2
