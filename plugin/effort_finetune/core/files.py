"""Files that are either the old one or the new one, whole, whenever the process is killed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from effort_finetune.core import temporaries
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.escaping import LINE_LIMIT, visible

#: Refusals that pass by themselves: another program has the file open, a network file system stalls.
_PASSING = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.EAGAIN, errno.EINTR, getattr(errno, "ESTALE", -1)}

#: In the errors by which torch and safetensors report a disk that refuses bytes.
_REFUSED_BYTES = ("No space left", "PytorchStreamWriter", "unexpected pos", "I/O error")


class WriteError(RunFailure, OSError):
    """A file could not be written: a full disk, a file system gone read-only. One line, exit code 1.

    What was at the path before is untouched. It is an OSError, so that code that treats those has no
    second case.
    """


def atomic_write(path: Path | str, writer: Callable[[Path], object], *, mode: int | None = None) -> Path:
    """Writes a file through a temporary neighbour, fsync and ``os.replace``.

    Args:
        path: The file to create or replace. Its folder is created.
        writer: Called with the temporary path; it writes the whole content there. It is called once.
        mode: Permissions of the file; ``None`` gives those of any new file.

    Returns:
        ``path`` as a :class:`~pathlib.Path`.

    Raises:
        WriteError: If the disk is full or the folder cannot be written; the old file, if any, is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporaries.remove_dead(path.parent, again=False)
        temporary = temporaries.file_beside(path)
        writer(temporary)
        # mkstemp makes 0600 files; a result should be as readable as any file the user creates.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask if mode is None else mode)
        _fsync(temporary)
        replace(temporary, path)
    except BaseException as error:
        free = _free(path.parent)  # before the temporary gives its space back
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) or (isinstance(error, Exception) and _is_about_space(error)):
            raise write_error(path, error, free=free) from error
        raise
    _fsync(path.parent)
    return path


def replace(source: Path, target: Path) -> None:
    """``os.replace``, tried three times within a third of a second.

    Network file systems, virus scanners and indexers hold a file for a moment; what is still refused then
    is raised.
    """
    for wait in (0.1, 0.2, None):
        try:
            return os.replace(source, target)
        except OSError as error:
            if wait is None or error.errno not in _PASSING:
                raise
            time.sleep(wait)


def write_error(path: Path, error: BaseException, *, free: int | None = None) -> WriteError:
    """Makes the one line about a file that could not be written.

    Args:
        path: The file.
        error: What the writer raised.
        free: Bytes free when it did; left out, those that are free now.
    """
    if isinstance(error, WriteError):
        return error
    free = _free(path.parent) if free is None else free
    reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
    left = "" if free is None else f", with {free / 1e6:.0f} MB free"
    made = WriteError(
        f"{visible(path, limit=LINE_LIMIT)} cannot be written ({visible(reason)}{left}); what was there"
        " before is untouched; next: make space or give write access, then run the same command again"
    )
    made.errno = getattr(error, "errno", None)
    return made


def mark_of(path: Path) -> tuple[int, int, int] | None:
    """Returns what tells a file from one written in its place later, ``None`` where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def _is_about_space(error: Exception) -> bool:
    text = str(error)
    return any(sign in text for sign in _REFUSED_BYTES)


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def cache_folder(name: str) -> Path:
    """Returns ``$XDG_CACHE_HOME/effort-finetune/<name>`` (``~/.cache/...``); it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "effort-finetune" / name


def require_regular(path: Path | str, *, most: int | None = None) -> None:
    """Refuses what may never end: a pipe without a writer is waited for, and a device has bytes for ever.

    Args:
        path: What is about to be read; a folder is left to who opens it.
        most: Bytes it may have.

    Raises:
        OSError: If it is a pipe, a socket or a device, is not there, or has more bytes.
    """
    found = os.stat(path)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    if most is not None and found.st_size > most:
        raise OSError(errno.EFBIG, f"{found.st_size / 1e9:.1f} GB are too many", str(path))


def write_text(path: Path | str, text: str) -> Path:
    """Writes UTF-8 text atomically, newlines as they are."""
    data = text.encode("utf-8")
    return atomic_write(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path | str, obj: Any) -> Path:
    """Writes strict JSON atomically (NaN and infinity are refused), indented, keys in the given order.

    Raises:
        ValueError: If ``obj`` holds a number JSON cannot express.
    """
    return write_text(path, json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def free_name(path: Path) -> Path:
    """Returns where a file that is about to be replaced is archived: ``<stem>.earlier_<n><suffix>``."""
    number = 1
    while (free := path.with_name(f"{path.stem}.earlier_{number}{path.suffix}")).exists():
        number += 1
    return free


def sha256_file(path: Path | str | int) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal, reading it as a stream.

    Args:
        path: The file, or the descriptor of an open one, which is closed.
    """
    with open(path, "rb") as stream:
        return sha256_stream(stream)


def sha256_stream(stream: BinaryIO) -> str:
    """Returns the SHA-256 of what an open file holds from here to its end, in hexadecimal."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def sha256_files(paths: Iterable[Path]) -> str:
    """Returns one SHA-256 of several files, of their hashes in the given order."""
    hashes = [sha256_file(path) for path in paths]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def ensure_writable_dir(path: Path | str, *, what: str = "output folder", flag: str = "--output_dir") -> Path:
    """Creates a folder and proves that a file can be written in it, before any long work.

    Args:
        path: The folder.
        what: What it is, for the error.
        flag: What chooses another one, for the error.

    Raises:
        UserError: If the folder cannot be created or written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        temporaries.remove_dead(path)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            what,
            got=f"{path} ({error.strerror or error})",
            expected="a folder that can be written",
            next_step=f"choose another one with {flag}",
        ) from error
    return path


def refuse_unwritable(path: Path | str, *, what: str = "output folder", flag: str = "--output_dir") -> None:
    """Refuses a folder that cannot be made or written, and makes nothing: the command may still be refused.

    Args:
        path: The folder.
        what: What it is, for the error.
        flag: What chooses another one, for the error.

    Raises:
        UserError: If the nearest folder that is there is none, or nothing can be written in it.
    """
    there = Path(path).absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            what,
            got=f"{path} ({there} is {'not writable' if there.is_dir() else 'no folder'})",
            expected="a folder that can be written",
            next_step=f"choose another one with {flag}",
        )


def _fsync(path: Path) -> None:
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except PermissionError:
        return  # Windows cannot open a folder; os.replace is all it offers
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems refuse fsync on folders only
            raise
    finally:
        os.close(descriptor)
