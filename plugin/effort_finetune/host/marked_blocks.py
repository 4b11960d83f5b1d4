"""The blocks that ``install`` puts into a host's files: how they are marked, found and taken out again.

Bytes that are not ours are never rewritten: line endings, encodings and a missing final newline survive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from effort_finetune.core.errors import UserError

OPEN = b"# >>> effort-finetune"
CLOSE = b"# <<< effort-finetune"
_OPENING = re.compile(rb"^[ \t]*# >>> effort-finetune(?:: (?P<name>[\w-]+))?[ \t]*\r?$")
_CLOSING = re.compile(rb"^[ \t]*# <<< effort-finetune[ \t]*\r?$")


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
        expected=f"'{OPEN.decode()}: NAME' ... '{CLOSE.decode()}'",
        next_step="fix or delete the block by hand",
    )


def split_lines(content: bytes) -> list[bytes]:
    """Returns the lines with their endings, cut at line feeds alone (``splitlines`` cuts at more)."""
    return re.findall(rb"[^\n]*\n|[^\n]+\Z", content)


def _text(lines: Sequence[bytes], marker: bytes) -> tuple[str, ...]:
    indentation = re.match(rb"[ \t]*", marker)[0]  # type: ignore[index]
    return tuple(
        line.removeprefix(indentation).decode("utf-8", "surrogateescape").rstrip("\r\n") for line in lines
    )
