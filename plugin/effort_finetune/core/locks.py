"""One writer a folder: a run folder, a host or a dataset is locked by the process that writes it.

The lock is the system's own (``flock``), which ends with the process however it dies; the file beside it only
names the holder. Where a file system or a platform has none, the file is the lock: it holds the number of a
process, and one of a process that is gone counts for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.processes import birth, host_name, is_alive

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".effort-finetune.lock"
_WAIT = "wait for it, or choose another folder"
#: Answers of a file system that has no ``flock``.
_NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_guard = threading.Lock()
#: Folder -> (descriptor or None, thread, times it is held) of this process.
_held: dict[str, tuple[int | None, int, int]] = {}


@dataclass(frozen=True)
class Holder:
    """Who writes a folder.

    Attributes:
        pid: Number of the process.
        born: Tells it from another process with that number (:func:`~..processes.birth`).
        host: Name of its machine.
        since: Local time at which it took the lock.
        command: What was typed.
    """

    pid: int
    born: str | None
    host: str
    since: str
    command: str

    def __str__(self) -> str:
        where = "" if self.host == host_name() else f" on {visible(self.host)}"
        return f"process {self.pid}{where}, since {visible(self.since)}: {visible(self.command)}"


@contextlib.contextmanager
def hold(folder: Path | str, *, what: str = "run folder", next_step: str = _WAIT) -> Iterator[None]:
    """Locks a folder for the block; the same thread may do it again inside.

    Nothing waits: a second process is refused at once. Loader workers do not inherit the lock.

    Args:
        folder: The folder; created if it is missing.
        what: What it is, for the error.
        next_step: What a refused user can do.

    Raises:
        UserError: If another process (or thread) holds it, named with its number, machine, start and command;
            if the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = os.path.realpath(folder)
        with _guard:
            _acquire(key, what, next_step)
    except OSError as error:
        raise UserError(
            f"{what} {visible(folder)}",
            got=f"no lock can be made in it ({error.strerror or error})",
            expected="a folder that can be written",
        ) from error
    try:
        yield
    finally:
        with _guard:
            _release(key)


def holder(folder: Path | str) -> Holder | None:
    """Returns who holds a folder now; None where no one does."""
    path = Path(folder) / LOCK_NAME
    with _guard:
        if os.path.realpath(folder) in _held:
            return _read(path)
    found = _read(path)
    if found is None or _is_gone(found):
        return None
    return found


def refuse_held(folder: Path | str, *, what: str = "run folder") -> None:
    """Refuses a folder that another process writes, before anything is loaded; :func:`hold` decides later.

    Args:
        folder: The folder, which need not be there.
        what: What it is, for the error.

    Raises:
        UserError: As :func:`hold` says it.
    """
    # A file alone says nothing: its writer may be gone, on another machine, too.
    if (Path(folder) / LOCK_NAME).exists():
        with hold(folder, what=what):
            pass


def _acquire(key: str, what: str, next_step: str) -> None:
    descriptor, thread, times = _held.get(key, (None, threading.get_ident(), 0))
    path = Path(key) / LOCK_NAME
    if times:
        if thread != threading.get_ident():
            raise _in_use(key, _read(path), what, next_step)
    else:
        descriptor = _flock(path, key, what, next_step)
        if descriptor is None:
            _claim(path, key, what, next_step)
    _held[key] = (descriptor, thread, times + 1)


def _release(key: str) -> None:
    descriptor, thread, times = _held[key]
    if times > 1:
        _held[key] = (descriptor, thread, times - 1)
        return
    del _held[key]
    with contextlib.suppress(OSError):  # the folder may be gone, or read-only by now
        (Path(key) / LOCK_NAME).unlink(missing_ok=True)
    if descriptor is not None:
        os.close(descriptor)


def _flock(path: Path, key: str, what: str, next_step: str) -> int | None:
    """Takes the system's lock.

    Returns:
        The descriptor that holds it; None where there is no such lock.
    """
    if fcntl is None:
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.fstat(descriptor).st_ino == os.stat(path).st_ino
        except FileNotFoundError:
            same = False
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_FLOCK:
                return None
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise _in_use(key, _read_patiently(path), what, next_step) from error
            raise
        if same:
            os.ftruncate(descriptor, 0)
            with contextlib.suppress(OSError):  # a full disk costs the holder's name, not the lock
                os.write(descriptor, _text())
            return descriptor
        os.close(descriptor)  # the holder before removed the file between our two steps


def _claim(path: Path, key: str, what: str, next_step: str) -> None:
    """Takes the lock where only files can say who has it."""
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            found = _read_patiently(path)
            if found is not None and not _is_gone(found):
                raise _in_use(key, found, what, next_step) from None
            path.unlink(missing_ok=True)
            continue
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(_text())
        return


def _is_gone(found: Holder) -> bool:
    """True where the holder cannot live any more; of another machine's process nobody here can tell."""
    return found.host == host_name() and not is_alive(found.pid, found.born)


def _text() -> bytes:
    command = shlex.join([os.path.basename(sys.argv[0] or "python"), *sys.argv[1:]])
    since = datetime.now().isoformat(sep=" ", timespec="seconds")
    mine = Holder(os.getpid(), birth(os.getpid()), host_name(), since, visible(command))
    return (json.dumps(asdict(mine)) + "\n").encode()


def _read(path: Path) -> Holder | None:
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(4096))
        born, pid = found["born"], int(found["pid"])
        if not 0 < pid < 1 << 31:
            return None
        return Holder(
            pid,
            None if born is None else str(born),
            *(str(found[k]) for k in ("host", "since", "command")),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


def _read_patiently(path: Path) -> Holder | None:
    """Reads who it is; a holder that has just begun writes its name within the next moment."""
    for _ in range(10):
        if (found := _read(path)) is not None:
            return found
        time.sleep(0.03)
    return None


def _in_use(key: str, found: Holder | None, what: str, next_step: str) -> UserError:
    return UserError(
        f"{what} {visible(key)} is in use",
        got=str(found) if found is not None else "another process",
        expected="one command at a time",
        next_step=next_step,
    )


def _forget_in_child() -> None:
    """A forked worker must not keep the lock alive after its parent's death."""
    global _guard
    _guard = threading.Lock()
    for descriptor, _, _ in _held.values():
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)  # closing a copy leaves the parent's lock as it is
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
