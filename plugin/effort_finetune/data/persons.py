"""Which clips and pictures show one person, so that no person is in two splits.

A name decides for videos and folders of frames alone, and within one dataset; a loose still is a sample of
its own unless its bytes or its look, its stem in both classes, or the user's pattern tie it to another.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError

#: A word in more than this share of the names is no person.
LARGEST_SHARE = 0.5
_CUT = re.compile(r"[_\-. ]+")


class Groups:
    """Things that belong together, also by way of others (a union-find over positions)."""

    def __init__(self, count: int) -> None:
        self._leader = list(range(count))

    def find(self, item: int) -> int:
        """The position that stands for an item's group."""
        leader = self._leader
        while leader[item] != item:
            leader[item] = leader[leader[item]]
            item = leader[item]
        return item

    def join(self, items: Iterable[int]) -> int:
        """Puts items together; returns how many groups that joined."""
        joined = 0
        leaders = [self.find(item) for item in items]
        for other in leaders[1:]:
            first, second = self.find(leaders[0]), self.find(other)
            if first != second:
                self._leader[max(first, second)] = min(first, second)
                joined += 1
        return joined

    def lists(self) -> list[list[int]]:
        """The groups in order of their first items."""
        groups: dict[int, list[int]] = defaultdict(list)
        for item in range(len(self._leader)):
            groups[self.find(item)].append(item)
        return list(groups.values())


@dataclass(frozen=True)
class PersonReport:
    """What decided who is in which sample.

    Attributes:
        persons: Groups of samples that nothing ties together.
        rule: How names of clips were read.
        joined: Number of ties that each rule made.
        largest: Samples of the largest group.
    """

    persons: int
    rule: str
    joined: Mapping[str, int]
    largest: int

    def line(self) -> str:
        """One line for people."""
        ties = ", ".join(f"{count} by {rule}" for rule, count in self.joined.items() if count)
        persons = counted(self.persons, "person or picture of its own", "persons or pictures of their own")
        return f"{persons} (clips: {self.rule}; ties: {ties or 'none'})"


def own_name(name: str) -> str:
    """A clip's name without the folders that ``prepare crop`` joined to it by ``__``.

    Names of DeepFakeDetection (``01_02__exit_phone_room__YVGY8LOK``) have ``__`` of their own, after the
    numbers of the persons.
    """
    parts = name.split("__")
    for position, part in enumerate(parts[:-1]):
        if re.fullmatch(r"\d+(_\d+)?", part):
            return "__".join(parts[position:])
    return parts[-1]


def by_pattern(name: str, pattern: str) -> tuple[str, ...]:
    """The persons that the user's pattern finds in a clip's own name; the name where it finds none.

    Args:
        name: Own name of a clip or stem of a still.
        pattern: Regular expression; each match is one person (its first group, where it has one).
            ``(\\d+)`` finds both persons of ``000_003``.

    Raises:
        UserError: The pattern is not one.
    """
    try:
        found = re.findall(pattern, name)
    except re.error as error:
        raise UserError(
            "--identity", got=f"{pattern!r} ({error})", expected="a regular expression"
        ) from error
    return tuple(match if isinstance(match, str) else match[0] for match in found) or (name,)


def _two_numbers(name: str) -> tuple[str, ...] | None:
    found = re.match(r"(\d\d)(?:_(\d\d))?__[A-Za-z]", name)
    return None if found is None else tuple(person for person in found.groups() if person)


def _ids(name: str) -> tuple[str, ...] | None:
    return tuple(re.findall(r"(?<![A-Za-z0-9])id\d+(?![0-9A-Za-z])", name)) or None


def _words(name: str) -> tuple[str, ...] | None:
    if re.fullmatch(r"\d+(?:[_-][A-Za-z]{2,})+", name) is None:
        return None
    return tuple(word.lower() for word in _CUT.split(name)[1:])


_RULES: Sequence[tuple[str, Callable[[str], tuple[str, ...] | None]]] = (
    ("numbers before __, as in 01_02__exit_phone_room", _two_numbers),
    ("id and a number, as in id0_id1_0000", _ids),
    ("words after a number, as in 10_collins_biden", _words),
)
WHOLE_NAME = "the whole name, also inside another's, as 003 in 000_003"


def name_rule(names: Sequence[str]) -> tuple[str, Callable[[str], tuple[str, ...]]]:
    """How the clips of one dataset name their persons: the first rule that fits the names.

    A rule fits that reads at least half of the names; words may be anything, so they are persons only where
    none is in more than half of the names. A name that the rule does not read stands for itself.

    Args:
        names: Own names of all clips of both classes.
    """
    different = set(names)
    for title, read in _RULES:
        found = {name: persons for name in different if (persons := read(name))}
        if 2 * len(found) < max(2, len(different)):
            continue
        shared = Counter(person for persons in found.values() for person in set(persons))
        if read is _words and max(shared.values()) > LARGEST_SHARE * len(different):
            continue
        return title, lambda name, found=found: found.get(name, (name,))
    by_tokens = {tuple(_CUT.split(name)): name for name in different}

    def inside(name: str) -> tuple[str, ...]:
        cut = _CUT.split(name)
        spans = (tuple(cut[i:j]) for i in range(len(cut)) for j in range(i + 1, len(cut) + 1))
        return (name, *(by_tokens[span] for span in spans if span in by_tokens))

    return WHOLE_NAME, inside


def tie_clips(groups: Groups, clips: Mapping[int, str], pattern: str | None, joined: Counter[str]) -> str:
    """Ties clips that share a person by their own names; returns the rule.

    Args:
        groups: Of all samples.
        clips: Own names by position.
        pattern: The user's ``--identity``, None for the rules.
        joined: Counts, added to.
    """
    if not clips:
        return "none"
    if pattern is not None:
        rule: str = f"--identity {pattern}"
        read: Callable[[str], tuple[str, ...]] = lambda name: by_pattern(name, pattern)  # noqa: E731
    else:
        rule, read = name_rule(list(clips.values()))
    joined["name"] += tie(groups, ((person, place) for place, name in clips.items() for person in read(name)))
    return rule


def tie(groups: Groups, keyed: Iterable[tuple[Hashable, int]]) -> int:
    """Ties positions that have a key in common; returns how many groups that joined."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for key, place in keyed:
        places[key].append(place)
    return sum(groups.join(items) for items in places.values())
