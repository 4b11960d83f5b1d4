"""Whether a video file is whole: tells one that nothing here can decode from one that is cut off or spoilt.

Only the frame of a container is read, a few bytes at each step, never its content.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MOST_BOXES = 10_000
_TS_PACKET, _M2TS_PACKET = 188, 192


def describe_container(path: Path) -> tuple[str | None, bool]:
    """Looks at a file's frame.

    Args:
        path: A regular file.

    Returns:
        The container's name, None where it is none that is known, and whether the file is whole.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        head = stream.read(16)
        for name, fits, check in _KINDS:
            if fits(head):
                try:
                    return name, check(stream, size)
                except (struct.error, ValueError):
                    return name, False
    return None, False


def _mp4(stream: BinaryIO, size: int) -> bool:
    """Boxes that end where the file ends, one of them with the list of samples."""
    at, kinds = 0, set()
    for _ in range(MOST_BOXES):
        if at == size:
            return b"moov" in kinds
        stream.seek(at)
        length, kind = struct.unpack(">I4s", stream.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", stream.read(8))
        elif length == 0:
            length = size - at
        if length < 8 or at + length > size:
            return False
        kinds.add(kind)
        at += length
    return False


def _avi(stream: BinaryIO, size: int) -> bool:
    """A chain of RIFF chunks inside the file (large files have several)."""
    at = 0
    while at + 12 <= size:
        stream.seek(at)
        kind, length = struct.unpack("<4sI", stream.read(8))
        if kind != b"RIFF":
            return at > 0
        at += 8 + length + length % 2
    return 0 < at <= size + 1


def _matroska(stream: BinaryIO, size: int) -> bool:
    """An EBML header and a segment that ends inside the file; one of unknown length cannot be judged."""
    at = 0
    for wanted in (0x1A45DFA3, 0x18538067):
        stream.seek(at)
        data = stream.read(12)
        if int.from_bytes(data[:4], "big") != wanted:
            return False
        width = 9 - data[4].bit_length()
        length = int.from_bytes(data[4 : 4 + width], "big") & ((1 << (7 * width)) - 1)
        if length == (1 << (7 * width)) - 1:
            return True
        at += 4 + width + length
    return at <= size


def _flv(stream: BinaryIO, size: int) -> bool:
    """The last four bytes give the length of the last tag."""
    stream.seek(size - 4)
    (last,) = struct.unpack(">I", stream.read(4))
    stream.seek(max(0, size - 4 - last))
    kind = stream.read(1)
    return 11 <= last < size and kind in (b"\x08", b"\x09", b"\x12")


def _transport(stream: BinaryIO, size: int) -> bool:
    """Packets of 188 or 192 bytes to the end."""
    for packet, offset in ((_TS_PACKET, 0), (_M2TS_PACKET, 4)):
        if size % packet == 0:
            stream.seek(size - packet + offset)
            return stream.read(1) == b"G"
    return False


def _gif(stream: BinaryIO, size: int) -> bool:
    stream.seek(size - 1)
    return stream.read(1) == b";"


def _is_transport(head: bytes) -> bool:
    return head[:1] == b"G" or head[4:5] == b"G"


_KINDS: tuple[tuple[str, Callable[[bytes], bool], Callable[[BinaryIO, int], bool]], ...] = (
    ("MP4", lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"), _mp4),
    ("AVI", lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ", _avi),
    ("Matroska", lambda head: head[:4] == b"\x1aE\xdf\xa3", _matroska),
    ("FLV", lambda head: head[:3] == b"FLV", _flv),
    ("GIF", lambda head: head[:4] == b"GIF8", _gif),
    ("MPEG transport stream", _is_transport, _transport),
)
