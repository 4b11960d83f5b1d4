"""Which files ``predict`` is asked about: files, folders, patterns, and a list on standard input."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.core.escaping import visible
from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.walk import below

STANDARD_INPUT = "-"


def find_files(paths: Sequence[str | Path], lines: Iterable[str] = ()) -> list[str]:
    """Lists the files, each once, in the order in which they were given.

    Args:
        paths: Files, folders (every file at any depth that is not hidden), patterns with ``*``, or ``-``.
        lines: What ``-`` stands for: one path a line. A line that names no file gets a record, not an error.

    Raises:
        UserErrors: A path that does not exist, a pattern or folder without files.
    """
    found: dict[str, None] = {}
    errors: list[UserError] = []
    for path in map(str, paths):
        try:
            names = list(_listed(lines) if path == STANDARD_INPUT else _expanded(path))
        except (OSError, ValueError) as error:  # a null byte, a folder without rights
            errors.append(UserError(visible(repr(path)), got=getattr(error, "strerror", None) or str(error)))
            continue
        if not names:
            what = "no file in it" if Path(path).is_dir() else "no such file"
            errors.append(UserError(visible(path), got=what, expected="a picture, a video, a folder of them"))
        found.update(dict.fromkeys(names))
    if errors:
        raise UserErrors(errors) if len(errors) > 1 else errors[0]
    return list(found)


def label_of(file: str, words: ClassWords) -> str | None:
    """The class that the folders above a file tell, the nearest one that tells a single one; None without."""
    for folder in reversed(Path(file).absolute().parts[:-1]):
        told = words.classes(folder)
        if len(told) == 1:
            return told[0]
    return None


def _listed(lines: Iterable[str]) -> Iterator[str]:
    yield from (line.rstrip("\r\n") for line in lines if line.strip())


def _expanded(path: str) -> Iterator[str]:
    place = Path(path).expanduser()
    if place.is_dir():
        yield from (str(file) for file in below(place) if not file.is_dir())
    elif place.exists() or place.is_symlink():
        yield str(place)
    elif glob.has_magic(path):
        for match in sorted(glob.glob(str(place), recursive=True)):
            yield from _expanded(glob.escape(match) if not Path(match).exists() else match)
