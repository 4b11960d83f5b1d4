"""The SHA-256 of a file, computed while its model is already in use."""

from __future__ import annotations

import hashlib
import os
import struct
import weakref
import zipfile
import zlib
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible


class BackgroundHash:
    """Hashes a file in a thread of its own, from :meth:`start` on; hashlib lets other threads run meanwhile.

    Hashing takes longer than reading, so a model should be ready before its report is. The thread is a
    daemon: a program that ends with an error does not wait for it. The file is opened here: one that takes
    its place afterwards is not the one that is hashed.

    Args:
        path: The file; it must not be written to until :meth:`value` has returned.

    Raises:
        OSError: If the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._value: str | None = None
        self._path = path
        self._error: OSError | UserError | None = None
        self._thread: Thread | None = None
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._unused = weakref.finalize(self, os.close, self._file)

    def start(self) -> None:
        """Begins, unless it has begun."""
        if self._thread is None:
            self._thread = Thread(target=self._compute, daemon=True, name="sha256")
            self._thread.start()

    def value(self) -> str:
        """Returns the digest in hexadecimal, waiting for it if need be.

        Raises:
            OSError: If the file could not be read.
            UserError: If it is an archive, and a part of it is not what its checksum says.
        """
        self.start()
        assert self._thread is not None
        self._thread.join()
        if self._value is None:
            raise self._error or RuntimeError("the hashing thread was stopped")
        return self._value

    def _compute(self) -> None:
        self._unused.detach()
        try:
            self._value, damaged = sha256_and_crcs(self._file)
            if damaged is not None:
                self._value = None
                self._error = UserError(
                    f"weights file {self._path}",
                    got=f"a damaged archive: {visible(damaged)} is not what its checksum says",
                    next_step="download or copy it again",
                )
        except OSError as error:
            self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        # A thread can be neither copied nor sent to another process; its result can.
        return _KnownHash, (self.value(),)


def sha256_and_crcs(descriptor: int) -> tuple[str, str | None]:
    """Hashes a file and checks the CRC of every stored member of a zip archive, in one reading.

    Args:
        descriptor: Of the open file; closed here.

    Returns:
        The SHA-256 in hexadecimal, and the name of the first member that is damaged.
    """
    digest, position, damaged = hashlib.sha256(), 0, None
    with open(descriptor, "rb") as stream:
        members = _stored_members(stream)
        stream.seek(0)
        current, crc = 0, 0
        while block := stream.read(1 << 20):
            digest.update(block)
            while current < len(members):
                name, start, end, expected = members[current]
                if start < position + len(block):
                    crc = zlib.crc32(block[max(0, start - position) : max(0, end - position)], crc)
                if end > position + len(block):
                    break
                if crc != expected and damaged is None:
                    damaged = name
                current, crc = current + 1, 0
            position += len(block)
    return digest.hexdigest(), damaged


def _stored_members(stream: BinaryIO) -> list[tuple[str, int, int, int]]:
    """Name, first byte, byte after the last, and CRC of each member stored as it is, in the file's order."""
    try:
        with zipfile.ZipFile(stream) as archive:
            listed = sorted(archive.infolist(), key=lambda member: member.header_offset)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error):
        return []  # no archive: safetensors, or a pickle of its own
    members, behind = [], 0
    for member in listed:
        stream.seek(member.header_offset + 26)
        lengths = stream.read(4)
        if member.compress_type != zipfile.ZIP_STORED or len(lengths) < 4:
            continue
        start = member.header_offset + 30 + sum(struct.unpack("<HH", lengths))
        if start >= behind:  # members that overlap are no archive of torch's
            members.append((member.filename, start, start + member.file_size, member.CRC))
            behind = start + member.file_size
    return members


class _KnownHash(BackgroundHash):
    """A digest that is known already."""

    def __init__(self, value: str) -> None:
        self._known = value

    def start(self) -> None:
        """Does nothing."""

    def value(self) -> str:
        return self._known

    def __reduce__(self) -> tuple[Any, ...]:
        return _KnownHash, (self._known,)
