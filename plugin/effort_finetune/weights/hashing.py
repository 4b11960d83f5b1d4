"""The SHA-256 of a file, computed while the file is being loaded."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

from effort_finetune.files import sha256_file


class BackgroundHash:
    """Hashes a file in a thread of its own; hashlib lets the other threads run meanwhile.

    Hashing takes longer than reading, so a model should be ready before its report is. The thread is a
    daemon: a program that ends with an error does not wait for it.

    Args:
        path: The file; it must not change until :meth:`value` has returned.
    """

    def __init__(self, path: Path) -> None:
        self._value: str | None = None
        self._error: OSError | None = None
        self._thread = Thread(target=self._compute, args=(path,), daemon=True, name="sha256")
        self._thread.start()

    def value(self) -> str:
        """Returns the digest in hexadecimal, waiting for it if need be.

        Raises:
            OSError: If the file could no longer be read.
        """
        self._thread.join()
        if self._value is None:
            raise self._error or RuntimeError("the hashing thread was stopped")
        return self._value

    def _compute(self, path: Path) -> None:
        try:
            self._value = sha256_file(path)
        except OSError as error:
            self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        # A thread can be neither copied nor sent to another process; its result can.
        return _KnownHash, (self.value(),)


class _KnownHash(BackgroundHash):
    """A digest that is known already."""

    def __init__(self, value: str) -> None:
        self._known = value

    def value(self) -> str:
        return self._known

    def __reduce__(self) -> tuple[Any, ...]:
        return _KnownHash, (self._known,)
