"""The blocks that ``install`` puts into a host's files: how they are marked, found and taken out again.

A block lies between ``# >>> effort-finetune`` and ``# <<< effort-finetune``. Version 1 had several in a
file, each with a name after a colon.

Bytes that are not ours are never rewritten: line endings, encodings and a missing final newline survive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from effort_finetune.core.errors import UserError

OPEN = b"# >>> effort-finetune"
CLOSE = b"# <<< effort-finetune"
BOM = b"\xef\xbb\xbf"
_OPENING = re.compile(rb"^[ \t]*# >>> effort-finetune(?:: (?P<name>[\w-]+))?[ \t]*\r?$")
_CLOSING = re.compile(rb"^[ \t]*# <<< effort-finetune[ \t]*\r?$")


@dataclass(frozen=True)
class Block:
    """One marked block found in a file.

    Attributes:
        name: From the opening marker; empty where it has none.
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
    mark, body = split_bom(content)
    lines = split_lines(body)
    for block in reversed(find_blocks(body)):
        # Only a file that had no final newline ends in a bare closing marker: its last line got one.
        joined = block.stop == len(lines) and not lines[-1].endswith(b"\n")
        del lines[block.start : block.stop]
        if joined and lines:
            lines[-1] = re.sub(rb"\r?\n\Z", b"", lines[-1])
    return mark + b"".join(lines)


def find_blocks(content: bytes) -> list[Block]:
    """Returns our blocks in the order they stand in.

    Raises:
        UserError: If a marker has no partner.
    """
    blocks: list[Block] = []
    start: int | None = None
    name = ""
    lines = split_lines(split_bom(content)[1])
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
        expected=f"'{OPEN.decode()}' ... '{CLOSE.decode()}'",
        next_step="fix or delete the block by hand",
    )


def split_lines(content: bytes) -> list[bytes]:
    """Returns the lines with their endings, cut at line feeds alone (``splitlines`` cuts at more)."""
    return re.findall(rb"[^\n]*\n|[^\n]+\Z", content)


def split_bom(content: bytes) -> tuple[bytes, bytes]:
    """Returns a UTF-8 byte order mark, which has to stay the first thing in its file, and the rest."""
    return (BOM, content[len(BOM) :]) if content.startswith(BOM) else (b"", content)


def _text(lines: Sequence[bytes], marker: bytes) -> tuple[str, ...]:
    indentation = re.match(rb"[ \t]*", marker)[0]  # type: ignore[index]
    return tuple(
        line.removeprefix(indentation).decode("utf-8", "surrogateescape").rstrip("\r\n") for line in lines
    )
