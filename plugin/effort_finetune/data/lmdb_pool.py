"""One read-only LMDB environment per path and process, opened at the first read.

Two versions of the library force this. From 1.7 an environment that is open when the process forks crashes
or hangs the child; from 2.0 a process may not open one path twice (train set == test set, any two
FaceForensics++ subsets).
So an environment is shared by path, never pickled, and closed just before any fork: both sides reopen on
demand.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lmdb

from effort_finetune.core.errors import UserError

_lock = threading.RLock()
_environments: dict[str, lmdb.Environment] = {}


def read_value(path: str, key: bytes) -> bytes | None:
    """The value stored under a key, None where the key is absent.

    Args:
        path: Folder of the LMDB, with symbolic links resolved.
        key: The key's bytes.
    """
    with _lock, _environment(path).begin(write=False) as transaction:
        return transaction.get(key)


def keys_present(path: str, keys: Iterable[bytes]) -> list[bool]:
    """Tells for each key whether the LMDB has it, without copying the values."""
    with _lock, _environment(path).begin(write=False, buffers=True) as transaction:
        return [transaction.get(key) is not None for key in keys]


def first_keys(path: str, count: int) -> list[bytes]:
    """The first keys in the LMDB's own order."""
    found: list[bytes] = []
    with _lock, _environment(path).begin(write=False) as transaction, transaction.cursor() as cursor:
        for key in cursor.iternext(keys=True, values=False):
            if len(found) == count:
                break
            found.append(key)
    return found


class SharedEnvironment:
    """Stands in for an ``lmdb.Environment`` of a host's class: opened at the first read, shared, picklable.

    Args:
        path: Folder of the LMDB.

    Raises:
        lmdb.Error: It is none, as ``lmdb.open`` would say.
    """

    def __init__(self, path: str) -> None:
        if not is_lmdb(Path(path)):
            raise lmdb.Error(f"{path}: No such file or directory")
        self.path = os.path.realpath(path)

    @contextlib.contextmanager
    def begin(self, *_: Any, **__: Any) -> Iterator[lmdb.Transaction]:
        """Begins a read."""
        with _lock, _environment(self.path).begin(write=False) as transaction:
            yield transaction


class _SharedLmdb:
    """The package as a host's module sees it: ``open`` shares its environments with ours."""

    def __getattr__(self, name: str) -> Any:
        return getattr(lmdb, name)

    def open(self, path: Any, *_: Any, **__: Any) -> SharedEnvironment:
        return SharedEnvironment(os.fspath(path))


def share_environments(reader: type) -> None:
    """Lets a class of a host read its LMDBs through this pool: what it opens itself no fork survives."""
    for base in reader.__mro__:
        for function in vars(base).values():
            names = getattr(function, "__globals__", {})
            if names.get("lmdb") is lmdb:
                names["lmdb"] = _SharedLmdb()


def close_all() -> None:
    """Closes every environment of this process; the next read opens what it needs again."""
    with _lock:
        while _environments:
            _environments.popitem()[1].close()


def is_lmdb(path: Path) -> bool:
    """True where the folder has LMDB's data file."""
    return (path / "data.mdb").is_file()


def _environment(path: str) -> lmdb.Environment:
    environment = _environments.get(path)
    if environment is None:
        try:
            # Read-ahead stays on: one crop spans some 25 pages, each a read of its own without it.
            environment = lmdb.open(path, create=False, readonly=True, lock=False)
            _refuse_truncated(path, environment)
        except lmdb.Error as error:
            twice = "already open" in str(error)
            step = "pip install 'lmdb<2': the host holds it open" if twice else "fetch or build it again"
            raise UserError(
                f"LMDB {path} cannot be opened", got=str(error), expected="a readable LMDB", next_step=step
            ) from error
        _environments[path] = environment
    return environment


def _refuse_truncated(path: str, environment: lmdb.Environment) -> None:
    """A copy that was cut off opens like a whole one; reading beyond its end kills the process (SIGBUS)."""
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = os.path.getsize(os.path.join(path, "data.mdb"))
    if size < expected:
        environment.close()
        raise UserError(
            f"LMDB {path} is cut off",
            got=f"{size} bytes",
            expected=f"{expected} bytes",
            next_step="copy or fetch it again, or build it with `effort-finetune prepare lmdb`",
        )


def _before_fork() -> None:
    _lock.acquire()
    close_all()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # the inherited one is owned by a thread that does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=lambda: _lock.release(), after_in_child=_after_fork_in_child
    )
