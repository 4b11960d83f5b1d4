"""Ctrl-C between two batches: the state that is saved is always a whole one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; raised where its state is whole, not where the signal came."""


class InterruptGuard:
    """Turns the first SIGINT or SIGTERM into a request to stop; the second one raises at once.

    Raising in the signal handler itself is for the impatient only: Python runs the handler wherever it
    happens to be, and an exception that rises in a destructor or in a weak reference's callback is printed
    and dropped.

    A context manager. Outside the main thread, where Python takes no signals, it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __call__(self) -> bool:
        """Tells whether the run was asked to stop."""
        return self.requested

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
        if again:
            raise KeyboardInterrupt
