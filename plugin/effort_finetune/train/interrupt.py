"""Ctrl-C between two steps: the state that is saved is always a whole one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class InterruptGuard:
    """Turns the first SIGINT or SIGTERM into a request to stop; the second one raises at once.

    A context manager. Outside the main thread, where Python takes no signals, it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._immediate = False
        self._previous: dict[int, object] = {}

    def __call__(self) -> bool:
        """Tells whether the run was asked to stop."""
        return self.requested

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Lets the first signal raise ``KeyboardInterrupt`` too, for work that changes no state."""
        self._immediate = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._immediate = False

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if again or self._immediate:
            raise KeyboardInterrupt
