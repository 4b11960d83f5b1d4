"""Where the bytes of a crop come from: LMDB files or plain files.

An LMDB environment is opened on first use in each process, once per path, because lmdb >= 2 refuses a second
open and lmdb >= 1.7 does not survive a fork with an environment open. Stores hold only paths, so they can be
pickled.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .errors import DatasetError, MissingFrameError

if TYPE_CHECKING:
    import lmdb

FFPP = "FaceForensics++"
FFPP_SUBSETS = (FFPP, "FF-DF", "FF-F2F", "FF-FS", "FF-NT")
FFPP_COMPANIONS = ("FaceShifter", "DeepFakeDetection")

_open: dict[str, lmdb.Environment] = {}
_lock = threading.RLock()


def _close_all() -> None:
    """Close every environment; the next read opens it again."""
    while _open:
        _open.popitem()[1].close()


def _before_fork() -> None:
    _lock.acquire()
    _close_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)


def _read_lmdb(path: Path, keys: Sequence[bytes]) -> bytes | None:
    """Return the value of the first key that the LMDB at ``path`` (resolved) holds."""
    import lmdb

    with _lock:
        name = str(path)
        if name not in _open:
            try:
                _open[name] = lmdb.open(name, readonly=True, lock=False, readahead=False, meminit=False)
            except lmdb.Error as error:
                raise DatasetError(f"{path} is not a readable LMDB: {error}") from error
        with _open[name].begin(buffers=False) as transaction:
            return next((value for key in keys if (value := transaction.get(key)) is not None), None)


def strip_prefix(path: str) -> str:
    """Cut ``./``, ``./datasets`` or ``./datasets/rgb``, with either slash, from the front of a path."""
    rest = path
    for prefix in (".", "datasets", "rgb"):
        if rest.replace("\\", "/").startswith(prefix + "/"):
            rest = rest[len(prefix) + 1 :]
        elif prefix != ".":
            break
    return rest


class FrameStore(Protocol):
    """Reads the file behind a path of the index."""

    def read(self, path: str) -> bytes:
        """Return the file's bytes, or raise MissingFrameError that names the path."""
        ...


class LmdbStore:
    """Frames in one or more LMDB folders. Keys are index paths; either kind of slash is found."""

    def __init__(self, paths: Sequence[Path]) -> None:
        # Resolved, because one folder under two names would be opened twice.
        self.paths = tuple(dict.fromkeys(path.resolve() for path in paths))

    def read(self, path: str) -> bytes:
        """Return the value stored for ``path``; MissingFrameError when no LMDB has it."""
        spellings = [path.removeprefix("./datasets\\"), path, strip_prefix(path)]
        spellings += [text.replace(*slashes) for slashes in ("/\\", "\\/") for text in spellings]
        keys = [text.encode() for text in dict.fromkeys(spellings)]
        for store in self.paths:
            value = _read_lmdb(store, keys)
            if value is not None:
                return value
        raise MissingFrameError(f"frame '{path}' is not in {', '.join(map(str, self.paths))}")


class FileStore:
    """Frames as files under ``rgb_dir``; index paths may carry a ``./datasets/rgb`` prefix or be absolute."""

    def __init__(self, rgb_dir: Path, root: Path) -> None:
        self.rgb_dir = rgb_dir
        self.root = root

    def candidates(self, path: str) -> Iterator[Path]:
        """Yield the places where the file may lie, the likeliest first."""
        plain = path.replace("\\", "/")
        yield self.rgb_dir / strip_prefix(plain)
        yield self.rgb_dir / plain.removeprefix("./").removeprefix("datasets/")
        yield self.root / plain

    def read(self, path: str) -> bytes:
        """Return the file's bytes; MissingFrameError when it lies nowhere."""
        for file in self.candidates(path):
            if file.is_file():
                return file.read_bytes()
        raise MissingFrameError(f"frame '{path}' is not a file under {self.rgb_dir}")


def lmdb_path(lmdb_dir: Path, name: str) -> Path:
    """Return the LMDB folder of a dataset; the FaceForensics++ family shares one.

    Raises:
        DatasetError: It does not exist.
    """
    names = [FFPP, name] if name in FFPP_SUBSETS else [name, FFPP] if name in FFPP_COMPANIONS else [name]
    folders = [lmdb_dir / f"{entry}_lmdb" for entry in dict.fromkeys(names)]
    for folder in folders:
        if (folder / "data.mdb").is_file():
            return folder
    raise DatasetError(
        f"dataset '{name}' has no LMDB: {folders[0]} not found; "
        "build it, or set lmdb: false to read plain files from rgb_dir"
    )
