"""Divides videos and pictures into train, val and test so that no person, and no video, is in two of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from effort_finetune.core.errors import UserError
from effort_finetune.data.index import SPLITS
from effort_finetune.data.persons import Groups, PersonReport, own_name, tie, tie_clips


@dataclass(frozen=True)
class Clip:
    """One video before it has a split.

    Attributes:
        name: Its name in the index.
        label: ``real`` or ``fake``.
        frames: Paths of its crops as the index will list them.
        still: Whether it is a loose picture, whose name tells no person.
        content: Hash of what its crops were made of, where it is known.
    """

    name: str
    label: str
    frames: tuple[str, ...]
    still: bool = False
    content: str | None = None


def assign_splits(
    clips: Sequence[Clip], *, ratios: Mapping[str, float], seed: int, identity: str | None = None
) -> dict[tuple[str, str], str]:
    """Gives every video a split: :func:`split_clips` without its report."""
    return split_clips(clips, ratios=ratios, seed=seed, identity=identity)[0]


def split_clips(
    clips: Sequence[Clip],
    *,
    ratios: Mapping[str, float],
    seed: int,
    identity: str | None = None,
    alike: Iterable[tuple[int, int]] = (),
) -> tuple[dict[tuple[str, str], str], PersonReport]:
    """Gives every video a split; videos that share a person, also by way of others, stay together.

    Args:
        clips: All videos of both classes.
        ratios: Share of ``train``, ``val`` and ``test``; 0 leaves a split empty.
        seed: Of the order.
        identity: Pattern of a person in a clip's own name; None reads the names by the rules of
            :func:`persons.name_rule`.
        alike: Positions of clips that show the same pictures.

    Returns:
        ``{(label, name): split}``, and who was found.

    Raises:
        UserError: Ratios that are no shares, or persons so connected that a split or a class in it stays
            empty.
    """
    groups, joined = Groups(len(clips)), Counter[str]()
    named = {p: own_name(clip.name) for p, clip in enumerate(clips) if identity is not None or not clip.still}
    rule = tie_clips(groups, named, identity, joined)
    joined["stem in both classes"] += tie(groups, ((c.name, p) for p, c in enumerate(clips) if c.still))
    joined["equal bytes"] += tie(groups, ((c.content, p) for p, c in enumerate(clips) if c.content))
    joined["equal look"] += sum(groups.join(pair) for pair in alike)
    found = groups.lists()
    chosen = divide(found, [clip.label for clip in clips], ratios=ratios, seed=seed)
    report = PersonReport(len(found), rule, dict(joined), max(map(len, found), default=0))
    return {(clip.label, clip.name): split for clip, split in zip(clips, chosen, strict=True)}, report


def divide(
    groups: Sequence[Sequence[int]],
    labels: Sequence[str],
    *,
    ratios: Mapping[str, float],
    seed: int,
    bare_is_error: bool = True,
) -> list[str]:
    """Gives every sample a split, groups of samples whole.

    Groups go, largest first and otherwise in an order drawn from the seed, to the split that lacks most of
    its share of the group's classes.

    Args:
        groups: Positions of samples that stay together.
        labels: Class of each sample.
        ratios: Share of ``train``, ``val`` and ``test``; 0 leaves a split empty.
        seed: Of the order.
        bare_is_error: Whether a split with a share may lack a class.

    Returns:
        The split of each sample.

    Raises:
        UserError: Ratios that are no shares, or a split that lacks a class.
    """
    wanted = [split for split in SPLITS if ratios.get(split, 0) > 0]
    if not wanted or abs(sum(ratios.values()) - 1) > 1e-6 or min(ratios.values()) < 0:
        got = " ".join(f"{share:g}" for share in ratios.values())
        raise UserError("--ratios", got=got, expected="three shares with the sum 1, such as 0.7 0.15 0.15")
    totals = Counter(labels)
    filled: dict[str, Counter[str]] = {split: Counter() for split in wanted}
    chosen = [""] * len(labels)
    order = list(groups)
    random.Random(seed).shuffle(order)
    for group in sorted(order, key=len, reverse=True):
        sizes = Counter(labels[place] for place in group)

        def lack(split: str, sizes: Counter[str] = sizes) -> float:
            return sum(
                n * (1 - filled[split][label] / (ratios[split] * totals[label])) for label, n in sizes.items()
            )

        split = max(wanted, key=lack)
        filled[split] += sizes
        for place in group:
            chosen[place] = split
    bare = [f"{split} has no {label}" for split in wanted for label in totals if not filled[split][label]]
    if bare and bare_is_error:
        raise UserError(
            "videos cannot be divided by person",
            got=", ".join(bare),
            expected="both classes in every split with a share",
            next_step="add videos, set a split's ratio to 0, or give a narrower --identity pattern",
        )
    return chosen
