"""Divides videos into train, val and test so that no person, and no video, is in two of them."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effort_finetune.core.errors import UserError
from effort_finetune.data.index import SPLITS


@dataclass(frozen=True)
class Clip:
    """One video before it has a split.

    Attributes:
        name: Its name in the index.
        label: ``real`` or ``fake``.
        frames: Paths of its crops as the index will list them.
    """

    name: str
    label: str
    frames: tuple[str, ...]


def identities(name: str, pattern: str | None) -> tuple[str, ...]:
    """Who is in a video, judged by its name.

    Args:
        name: Name of the video.
        pattern: Regular expression; each match is one person (its first group, where it has one).
            ``(\\d+)`` finds both persons of ``000_003``. Without one, the whole name: a fake stays with the
            real of its name.

    Raises:
        UserError: The pattern is not one.
    """
    if pattern is None:
        return (name,)
    try:
        found = re.findall(pattern, name)
    except re.error as error:
        raise UserError(
            "--identity", got=f"{pattern!r} ({error})", expected="a regular expression"
        ) from error
    return tuple(match if isinstance(match, str) else match[0] for match in found) or (name,)


def assign_splits(
    clips: Sequence[Clip], *, ratios: Mapping[str, float], seed: int, identity: str | None = None
) -> dict[tuple[str, str], str]:
    """Gives every video a split; videos that share a person, also by way of others, stay together.

    Groups go, largest first and otherwise in an order drawn from the seed, to the split that lacks most of
    its share of the group's classes.

    Args:
        clips: All videos of both classes.
        ratios: Share of ``train``, ``val`` and ``test``; 0 leaves a split empty.
        seed: Of the order.
        identity: See :func:`identities`.

    Returns:
        ``{(label, name): split}``.

    Raises:
        UserError: Ratios that are no shares, or persons so connected that a split or a class in it stays
        empty.
    """
    wanted = [split for split in SPLITS if ratios.get(split, 0) > 0]
    if not wanted or abs(sum(ratios.values()) - 1) > 1e-6 or min(ratios.values()) < 0:
        got = " ".join(f"{share:g}" for share in ratios.values())
        raise UserError("--ratios", got=got, expected="three shares with the sum 1, such as 0.7 0.15 0.15")
    totals = Counter(clip.label for clip in clips)
    filled: dict[str, Counter[str]] = {split: Counter() for split in wanted}
    assigned: dict[tuple[str, str], str] = {}
    for group in _connected(clips, identity, seed):
        sizes = Counter(clip.label for clip in group)

        def lack(split: str, sizes: Counter[str] = sizes) -> float:
            return sum(
                n * (1 - filled[split][label] / (ratios[split] * totals[label])) for label, n in sizes.items()
            )

        split = max(wanted, key=lack)
        filled[split] += sizes
        assigned |= {(clip.label, clip.name): split for clip in group}
    bare = [f"{split} has no {label}" for split in wanted for label in totals if not filled[split][label]]
    if bare:
        raise UserError(
            "videos cannot be divided by person",
            got=", ".join(bare),
            expected="both classes in every split with a share",
            next_step="add videos, set a split's ratio to 0, or give a narrower --identity pattern",
        )
    return assigned


def _connected(clips: Sequence[Clip], identity: str | None, seed: int) -> list[list[Clip]]:
    """Groups of videos that share persons, largest first."""
    leader: dict[str, str] = {}

    def find(person: str) -> str:
        leader.setdefault(person, person)
        while leader[person] != person:
            leader[person] = leader[leader[person]]
            person = leader[person]
        return person

    persons = [identities(clip.name, identity) for clip in clips]
    for first, *others in persons:
        for other in others:
            leader[find(other)] = find(first)
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip, (first, *_) in zip(clips, persons, strict=True):
        groups[find(first)].append(clip)
    ordered = [groups[key] for key in sorted(groups)]
    random.Random(seed).shuffle(ordered)
    return sorted(ordered, key=len, reverse=True)
