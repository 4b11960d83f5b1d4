"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 between two batches: the state that is saved is always a whole one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import ClassVar

#: What asks a run to save and end: a terminal's Ctrl-C and its closing, a scheduler's end of time and its
#: warning before it. Windows has the first two.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; raised where its state is whole, not where the signal came."""


class InterruptGuard:
    """Turns a signal into a request to stop; a second Ctrl-C raises at once.

    Raising in the signal handler itself is for the impatient only: Python runs the handler wherever it
    happens to be, and an exception that rises in a destructor or in a weak reference's callback is printed
    and dropped. A second SIGTERM, SIGHUP or SIGUSR1 asks for nothing new: schedulers send several.

    A context manager. Outside the main thread, where Python takes no signals, it does nothing. SIGHUP stays
    ignored where it is (``nohup``).

    Attributes:
        requested: Whether the run was asked to stop.
        reason: Name of the signal that asked first, e.g. ``"SIGTERM"``; None before.
    """

    SIGNALS = SIGNALS
    _entered: ClassVar[list[InterruptGuard]] = []

    def __init__(self) -> None:
        self.requested = False
        self.reason: str | None = None
        self._previous: dict[int, object] = {}

    def __call__(self) -> bool:
        """Tells whether the run was asked to stop."""
        return self.requested

    def __enter__(self) -> InterruptGuard:
        for outer in self._entered:  # asked before this run began
            self.requested, self.reason = self.requested or outer.requested, self.reason or outer.reason
        self._entered.append(self)
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                ignored = signal.getsignal(number) is signal.SIG_IGN
                if not (ignored and number != signal.SIGINT):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.remove(self)
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = self.reason or signal.Signals(number).name
        for (
            outer
        ) in self._entered:  # a job made of runs has to stop as well, and Python asks the inner guard alone
            outer.requested, outer.reason = True, outer.reason or self.reason


def requested() -> bool:
    """Tells whether a run of this process was asked to stop; for code that waits for another process."""
    return any(guard.requested for guard in InterruptGuard._entered)


def ignore_in_worker() -> None:
    """Makes a worker process deaf to :data:`SIGNALS`: a terminal or scheduler sends them to the whole group,
    and whether to stop, and where, is the parent's to say. The parent ends such a worker with SIGKILL."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
