"""Files that are either the old one or the new one, whole, whenever the process is killed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError


def atomic_write(path: Path | str, writer: Callable[[Path], object]) -> Path:
    """Writes a file through a temporary neighbour, fsync and ``os.replace``.

    Args:
        path: The file to create or replace. Its folder is created.
        writer: Called with the temporary path; it writes the whole content there.

    Returns:
        ``path`` as a :class:`~pathlib.Path`.

    Raises:
        OSError: If the folder cannot be written; the old file, if any, is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        writer(temporary)
        # mkstemp makes 0600 files; a result should be as readable as any file the user creates.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        _fsync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)
    return path


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


def sha256_file(path: Path | str | int) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal, reading it as a stream.

    Args:
        path: The file, or the descriptor of an open one, which is closed.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
