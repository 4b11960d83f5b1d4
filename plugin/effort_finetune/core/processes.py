"""Whether a process that left its number in a file still runs."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path


def host_name() -> str:
    """The machine's name, as files written by one process name it to another."""
    return socket.gethostname()


def birth(pid: int) -> str | None:
    """A mark that tells a process from an earlier one with the same number; None where none can be had.

    Linux counts the clock ticks from the machine's start to the process's.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold blanks and brackets
    return fields[19] if len(fields) > 19 else None


def is_alive(pid: int, born: str | None = None) -> bool:
    """Tells whether a process of this machine runs.

    Args:
        pid: Its number.
        born: Its :func:`birth`, where known: numbers are used again.
    """
    if pid <= 0:
        return False
    if sys.platform == "win32":
        return _is_alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is another user's
    now = birth(pid)
    return born is None or now is None or born == now


def _is_alive_on_windows(pid: int) -> bool:
    """Asks the system: ``os.kill(pid, 0)`` would end the process there."""
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return bool(kernel.GetLastError() == 5)  # access denied: it is there
    code = ctypes.c_ulong()
    kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return code.value == 259  # STILL_ACTIVE
