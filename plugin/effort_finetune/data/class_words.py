"""What folder names say: the class of the pictures below them, or their split; the words are data."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

CLASSES = ("real", "fake")


def _flat(value: Any) -> frozenset[str]:
    return frozenset(word for item in value for word in (item if isinstance(item, list) else [item]))


@lru_cache(maxsize=1)
def word_table() -> Mapping[str, frozenset[str]]:
    """The words of ``class_words.yaml`` by what they mean."""
    text = files(__package__).joinpath("class_words.yaml").read_text(encoding="utf-8")
    # BaseLoader: "true" is a word here, as all others are.
    return {meaning: _flat(words) for meaning, words in yaml.load(text, Loader=yaml.BaseLoader).items()}


@dataclass(frozen=True)
class ClassWords:
    """How folder names tell classes in one run.

    Attributes:
        real: Patterns of whole names (``*`` and ``?``, capitals do not count) in place of the table; empty
            for the table's words.
        fake: The same for fakes.
    """

    real: tuple[str, ...] = ()
    fake: tuple[str, ...] = ()

    def classes(self, folder: str) -> tuple[str, ...]:
        """The classes that a folder's own name tells: none, one, or both."""
        return _classes(folder, self.real, self.fake)

    def named(self, folder: str) -> tuple[str, ...]:
        """The classes that the user's own patterns tell; none where the user gave none."""
        return tuple(name for name in CLASSES if _matches(folder, getattr(self, name)))


@lru_cache(maxsize=1 << 14)
def _classes(folder: str, real: tuple[str, ...], fake: tuple[str, ...]) -> tuple[str, ...]:
    own = {"real": real, "fake": fake}
    by_hand = tuple(name for name in CLASSES if _matches(folder, own[name]))
    if by_hand:
        return by_hand  # what the user says of a name wins over the table
    found = tokens(folder)
    return tuple(name for name in CLASSES if not own[name] and found & word_table()[name])


def _matches(folder: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(folder.lower(), pattern.lower()) for pattern in patterns)


def tokens(name: str) -> frozenset[str]:
    """The words of a folder's name: cut at ``_-. ``, without digits at their ends, in small letters.

    Digits inside a word stay, so that a generator such as ``Real3DPortrait`` is no real.
    """
    return frozenset(piece.strip("0123456789") for piece in re.split(r"[_\-. ]+", name.lower())) - {""}


def split_of(folder: str) -> str | None:
    """``train``, ``val`` or ``test`` where a folder's whole name says so."""
    return next((s for s in ("train", "val", "test") if folder.lower() in word_table()[s]), None)


def is_aside(folder: str) -> bool:
    """Tells whether a folder holds masks or landmarks."""
    return folder.lower() in word_table()["aside"]


def is_frames(folder: str) -> bool:
    """Tells whether a folder holds one folder for each video."""
    return folder.lower() in word_table()["frames"]
