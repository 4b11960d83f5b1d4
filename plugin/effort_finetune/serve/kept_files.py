"""The files themselves, while the page needs them, and the small pictures that stay with a row."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from pathlib import Path
from typing import BinaryIO

from effort_finetune.core.files import ensure_writable_dir
from effort_finetune.serve.page_limits import PageLimits
from effort_finetune.serve.row_store import RowStore

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


class NoRoom(Exception):
    """There is no room for a file now; later there may be."""


class KeptFiles:
    """Where the bytes of rows lie: ``incoming/`` for files, ``pictures/`` for what stays.

    Files go when their row is removed, when others need the room, and when the server ends; those that a
    killed server left go at the next start.

    Args:
        folder: The page's folder, locked by the caller.
        store: Its rows.
        limits: How much may lie there.

    Raises:
        UserError: If the folder cannot be written.
    """

    def __init__(self, folder: Path, store: RowStore, limits: PageLimits) -> None:
        self._store, self._limits = store, limits
        self._incoming, self._pictures = folder / "incoming", folder / "pictures"
        self._guard = threading.Lock()
        self._sizes: dict[int, int] = {}
        self.clear()
        for place in (self._incoming, self._pictures):
            ensure_writable_dir(place, what="page folder", flag="--folder")

    def clear(self) -> None:
        """Removes every file that was dropped; pictures stay."""
        with self._guard:
            self._sizes.clear()
        shutil.rmtree(self._incoming, ignore_errors=True)

    def path(self, row: int, name: str) -> Path:
        """Returns where the bytes of a row lie; of its name the suffix alone is taken."""
        suffix = Path(name).suffix
        return self._incoming / f"{row}{suffix if _SUFFIX.fullmatch(suffix) else ''}"

    def pictures(self, row: int) -> Path:
        """Returns the folder of a row's pictures; it may not exist."""
        return self._pictures / str(row)

    def claim(self, row: int, size: int) -> None:
        """Makes room for a file; those of finished rows go, the oldest first.

        Raises:
            NoRoom: If there is none.
        """
        with self._guard:
            for old in sorted(self._sizes):
                if self._fits(size):
                    break
                found = self._store.row(old)
                if found is not None and found.state == "done":
                    self._unlink(old, found.name)
                    self._store.change(old, kept=0)
                    del self._sizes[old]
            if not self._fits(size):
                raise NoRoom("no room for it on the disk now")
            self._sizes[row] = size

    def _fits(self, size: int) -> bool:
        free = shutil.disk_usage(self._incoming).free - self._limits.free_bytes
        return size <= free and sum(self._sizes.values()) + size <= self._limits.kept_bytes

    def open(self, row: int, name: str) -> BinaryIO:
        """Opens a new file for the bytes of a row."""
        path = self.path(row, name)
        return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def drop(self, row: int, name: str) -> None:
        """Removes the bytes of a row."""
        with self._guard:
            self._sizes.pop(row, None)
            self._unlink(row, name)

    def forget(self, row: int, name: str) -> None:
        """Removes the bytes of a row and its pictures."""
        self.drop(row, name)
        shutil.rmtree(self.pictures(row), ignore_errors=True)

    def _unlink(self, row: int, name: str) -> None:
        with contextlib.suppress(OSError):
            self.path(row, name).unlink(missing_ok=True)
