"""Whether a process that left its number in a file still runs."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
from pathlib import Path


def host_name() -> str:
    """The machine's name, as files written by one process name it to another."""
    return socket.gethostname()


def birth(pid: int) -> str | None:
    """A mark that tells a process from an earlier one with the same number; None where none can be had.

    Linux counts the clock ticks from the machine's start to the process's.
    """
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """What Linux says of a process from its state on; empty where it says nothing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()  # the name before may hold blanks and brackets


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
    if _stat(pid)[:1] == ["Z"]:
        return (
            False  # dead; in a container whose first process waits for nobody it stays in the list for ever
        )
    now = birth(pid)
    return born is None or now is None or born == now


def end_with_parent() -> None:
    """Lets a worker process end when its parent is gone: one whose parent was killed would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
