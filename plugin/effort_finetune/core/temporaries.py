"""Temporary files and folders that say whose they are, so that those of the dead can be removed.

The name holds the machine, the process's number and its birth:
``.<name>.<machine>-<pid>-<born>-<random>.tmp``. A process removes, before its first write in a folder, what
processes of this machine that no longer run have left there; what another machine left in a shared folder,
once it has not been touched for two days.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from effort_finetune.core.processes import birth, host_name, is_alive

SUFFIX = ".tmp"
_NAME = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d{1,10})-(?P<born>\d*)-\w+\.tmp", re.DOTALL)
_FOREIGN_SECONDS = 2 * 24 * 3600
_cleaned: set[str] = set()


def file_beside(path: Path) -> Path:
    """Creates an empty temporary file in the folder of ``path``."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path.name), suffix=SUFFIX)
    os.close(handle)
    return Path(name)


def folder_in(parent: Path, stem: str) -> Path:
    """Creates a temporary folder in ``parent``."""
    return Path(tempfile.mkdtemp(dir=parent, prefix=_prefix(stem), suffix=SUFFIX))


@contextlib.contextmanager
def folder(parent: Path, stem: str) -> Iterator[Path]:
    """A temporary folder in ``parent``, removed after the block."""
    path = folder_in(parent, stem)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_dead(parent: Path | str, *, again: bool = True) -> list[Path]:
    """Removes the temporaries of processes that no longer run.

    Args:
        parent: The folder to look in, not below it.
        again: Look even if this process has looked there already.

    Returns:
        What was removed.
    """
    key = os.path.realpath(parent)
    if key in _cleaned and not again:
        return []
    _cleaned.add(key)
    removed = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name) if entry.name.endswith(SUFFIX) else None
            if found and _is_dead(found, entry):
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        path.unlink()
                removed.append(path)
    return removed


def _is_dead(found: re.Match[str], entry: os.DirEntry[str]) -> bool:
    if found["machine"] == _machine():
        return not is_alive(int(found["pid"]), found["born"] or None)
    with contextlib.suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FOREIGN_SECONDS
    return False


def _prefix(name: str) -> str:
    short = name.encode(errors="surrogateescape")[:80].decode(errors="ignore")  # a name has 255 bytes
    return f".{short}.{_machine()}-{os.getpid()}-{birth(os.getpid()) or ''}-"


@cache
def _machine() -> str:
    """Machine and, in a container, its own space of process numbers."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{host_name()} {space}".encode()).hexdigest()[:8]
