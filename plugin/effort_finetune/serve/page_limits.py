"""What the page takes at most: of bytes, of files, of rows."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class PageLimits:
    """Bounds on everything that a browser can send.

    Attributes:
        file_bytes: Of one file.
        kept_bytes: Of all files that lie on the disk; those of finished rows go first.
        unfinished: Files that were announced and have no verdict yet.
        rows: Rows in all; more are refused until some are removed.
        message_bytes: Of a request that carries no file.
        free_bytes: Left free on the disk whatever comes.
    """

    file_bytes: int = 2048 * MIB
    kept_bytes: int = 20 * 1024 * MIB
    unfinished: int = 10_000
    rows: int = 100_000
    message_bytes: int = 8 * MIB
    free_bytes: int = 512 * MIB
