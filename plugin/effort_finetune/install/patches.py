"""Inserts marked blocks into a file's bytes and takes them out again; pure functions, no disk writes.

A patch is data (``patches/*.yaml``): a file, and insertions, each with the pattern of one line of the
host's interface, a side, and our own lines. Bytes that are not ours are never rewritten: line endings,
encodings and a missing final newline survive, and :func:`strip` undoes :func:`insert` exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from effort_finetune.core.errors import UserError
from effort_finetune.host.marked_blocks import CLOSE, split_lines

#: What a user whose checkout cannot be patched can run.
WITHOUT_INSTALLING = "effort-finetune finetune --host PATH --detector_config FILE"


@dataclass(frozen=True)
class Insertion:
    """Lines put beside one line of a host's file.

    Attributes:
        name: Unique within the file; stands in the opening marker.
        where: ``before`` or ``after`` the anchor, or at the ``end`` of the file.
        anchor: Regular expression searched in each line; it has to match exactly one. With ``end`` it
            only proves that the file offers what the lines use.
        lines: What is inserted, without indentation.
        indent: Spaces added to the anchor's own indentation, e.g. 4 after a ``def``.
    """

    name: str
    where: Literal["before", "after", "end"]
    anchor: str
    lines: tuple[str, ...]
    indent: int = 0


@dataclass(frozen=True)
class Patch:
    """All insertions into one file of a host.

    Attributes:
        file: Path relative to the host's root.
        insertions: In any order.
    """

    file: str
    insertions: tuple[Insertion, ...]


def load_patch(path: Path) -> Patch:
    """Reads one patch file; a mistake in it is the package's own and raises ``ValueError``."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    insertions = tuple(
        Insertion(
            name=item["name"],
            where=item["where"],
            anchor=item["anchor"],
            lines=tuple(item["lines"].splitlines()),
            indent=item.get("indent", 0),
        )
        for item in tree["insertions"]
    )
    names = [insertion.name for insertion in insertions]
    if len(set(names)) != len(names) or any(i.where not in ("before", "after", "end") for i in insertions):
        raise ValueError(f"{path}: names must be unique and 'where' before, after or end")
    return Patch(file=tree["file"], insertions=insertions)


def insert(content: bytes, patch: Patch) -> bytes:
    """Returns ``content`` with the patch's blocks in it.

    Args:
        content: The file without any of our blocks (see :func:`strip`).
        patch: What to insert.

    Raises:
        UserError: If an anchor matches no line or several: the host is at a revision, or has local
            edits, that the patch does not know.
    """
    lines = split_lines(content)
    places: list[tuple[int, Insertion, bytes]] = []
    for insertion in patch.insertions:
        index = _anchor_line(lines, insertion, patch.file)
        indentation = re.match(rb"[ \t]*", lines[index])[0] + b" " * insertion.indent  # type: ignore[index]
        place = {"before": index, "after": index + 1, "end": len(lines)}[insertion.where]
        places.append((place, insertion, b"" if insertion.where == "end" else indentation))
    # From the bottom up, so that indices stay valid; of two at one place the later one first.
    places.sort(key=lambda p: p[0])
    for place, insertion, indentation in reversed(places):
        lines[place:place] = _block_lines(lines, place, insertion, indentation)
    return b"".join(lines)


def _anchor_line(lines: Sequence[bytes], insertion: Insertion, file: str) -> int:
    pattern = re.compile(insertion.anchor)
    hits = [
        index
        for index, line in enumerate(lines)
        if pattern.search(line.decode("utf-8", "surrogateescape").rstrip("\r\n"))
    ]
    if len(hits) != 1:
        raise UserError(
            f"{file} does not look like the host the patch {insertion.name!r} was made for",
            got=f"{len(hits)} lines that match /{insertion.anchor}/",
            expected="exactly one",
            next_step=f"restore the file, or do without: {WITHOUT_INSTALLING}",
        )
    return hits[0]


def _block_lines(lines: list[bytes], place: int, insertion: Insertion, indentation: bytes) -> list[bytes]:
    neighbour = lines[place - 1] if place else lines[0]
    ending = b"\r\n" if (neighbour.endswith(b"\r\n") or lines[0].endswith(b"\r\n")) else b"\n"
    body = [f"# >>> effort-finetune: {insertion.name}", *insertion.lines, CLOSE.decode()]
    block = [(indentation + line.encode() if line else b"") + ending for line in body]
    if place == len(lines) and lines and not lines[-1].endswith(b"\n"):
        lines[-1] += ending
        block[-1] = block[-1][: -len(ending)]
    return block
