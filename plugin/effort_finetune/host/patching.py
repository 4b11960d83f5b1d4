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

from effort_finetune.errors import UserError

#: What a user whose checkout cannot be patched can run.
WITHOUT_INSTALLING = "effort-finetune finetune --host PATH --detector_config FILE"

_OPEN = b"# >>> effort-finetune"
_CLOSE = b"# <<< effort-finetune"
_OPENING = re.compile(rb"^[ \t]*# >>> effort-finetune(?:: (?P<name>[\w-]+))?[ \t]*\r?$")
_CLOSING = re.compile(rb"^[ \t]*# <<< effort-finetune[ \t]*\r?$")


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


@dataclass(frozen=True)
class Block:
    """One marked block found in a file.

    Attributes:
        name: From the opening marker.
        start: Index of the opening marker's line.
        stop: Index after the closing marker's line.
        text: The lines between the markers, without indentation and line endings.
    """

    name: str
    start: int
    stop: int
    text: tuple[str, ...]


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


def strip(content: bytes) -> bytes:
    """Returns ``content`` without our blocks, everything else byte for byte as it is.

    Raises:
        UserError: If a marker has no partner.
    """
    lines = split_lines(content)
    for block in reversed(find_blocks(content)):
        # Only a file that had no final newline ends in a bare closing marker: its last line got one.
        joined = block.stop == len(lines) and not lines[-1].endswith(b"\n")
        del lines[block.start : block.stop]
        if joined and lines:
            lines[-1] = re.sub(rb"\r?\n\Z", b"", lines[-1])
    return b"".join(lines)


def find_blocks(content: bytes) -> list[Block]:
    """Returns our blocks in the order they stand in.

    Raises:
        UserError: If a marker has no partner.
    """
    blocks: list[Block] = []
    start: int | None = None
    name = ""
    lines = split_lines(content)
    for index, line in enumerate(lines):
        opening = _OPENING.match(line.rstrip(b"\n"))
        closing = _CLOSING.match(line.rstrip(b"\n"))
        if (opening and start is not None) or (closing and start is None):
            break
        if opening:
            start, name = index, (opening["name"] or b"").decode()
        elif closing and start is not None:
            blocks.append(Block(name, start, index + 1, _text(lines[start + 1 : index], lines[start])))
            start = None
    else:
        if start is None:
            return blocks
    raise UserError(
        "a marker of effort-finetune has no partner",
        got=f"line {index + 1}: {line.decode('utf-8', 'replace').strip()!r}",
        expected=f"'{_OPEN.decode()}: NAME' ... '{_CLOSE.decode()}'",
        next_step="mend or delete the block by hand",
    )


def split_lines(content: bytes) -> list[bytes]:
    """Returns the lines with their endings, cut at line feeds alone (``splitlines`` cuts at more)."""
    return re.findall(rb"[^\n]*\n|[^\n]+\Z", content)


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
    body = [f"# >>> effort-finetune: {insertion.name}", *insertion.lines, _CLOSE.decode()]
    block = [(indentation + line.encode() if line else b"") + ending for line in body]
    if place == len(lines) and lines and not lines[-1].endswith(b"\n"):
        lines[-1] += ending
        block[-1] = block[-1][: -len(ending)]
    return block


def _text(lines: Sequence[bytes], marker: bytes) -> tuple[str, ...]:
    indentation = re.match(rb"[ \t]*", marker)[0]  # type: ignore[index]
    return tuple(
        line.removeprefix(indentation).decode("utf-8", "surrogateescape").rstrip("\r\n") for line in lines
    )
