"""The SHA-256 of a file, computed while its model is already in use."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from threading import Thread
from typing import Any

from effort_finetune.core.files import sha256_file


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
        self._error: OSError | None = None
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
            self._value = sha256_file(self._file)
        except OSError as error:
            self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        # A thread can be neither copied nor sent to another process; its result can.
        return _KnownHash, (self.value(),)


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
