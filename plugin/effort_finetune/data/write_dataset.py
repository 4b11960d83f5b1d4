"""Writes what DeepfakeBench reads: the LMDB of a dataset's crops and its JSON index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from effort_finetune.core import temporaries
from effort_finetune.core.errors import UserError
from effort_finetune.core.files import replace, write_error, write_json
from effort_finetune.data import lmdb_pool
from effort_finetune.data.index import SPLITS, Video

FIRST_MAP_SIZE = 1 << 26  # grown when full: on Windows the file takes the map's size at once
PUTS_PER_TRANSACTION = 1000


def write_lmdb(path: Path, items: Iterable[tuple[str, bytes]]) -> int:
    """Writes an LMDB beside its final place and moves it there when it is whole.

    Args:
        path: Folder of the LMDB, by the host's convention ``<lmdb_dir>/<dataset>_lmdb``; replaced if it is
            there.
        items: (key, value) pairs; a frame's key is its path in the index with backslashes, its value the
            image file's bytes. Sorted keys give the same file every time.

    Returns:
        Number of entries.

    Raises:
        UserError: A key comes twice, or the path is something else than an LMDB.
        WriteError: The disk is full; what was there before is kept.
    """
    path = Path(path)
    if path.exists() and not (path / "data.mdb").is_file():
        raise UserError(
            f"{path} is in the way of the LMDB",
            got="something that is not an LMDB",
            expected="a new path, or an LMDB to replace",
            next_step="move it away or choose another name",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporaries.remove_dead(path.parent)
    temporary = temporaries.folder_in(path.parent, path.name)
    try:
        count = _fill(temporary, items)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        lmdb_pool.close_all()  # a reader of this process would go on with the old file
        _replace_folder(temporary, path)
    except BaseException as error:
        free = shutil.disk_usage(path.parent).free
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, (lmdb.Error, OSError)):  # lmdb calls a full disk an input/output error
            raise write_error(path, error, free=free) from error
        raise
    return count


def _fill(folder: Path, items: Iterable[tuple[str, bytes]]) -> int:
    size, count = FIRST_MAP_SIZE, 0
    with lmdb.open(str(folder), map_size=size, subdir=True, lock=False, writemap=False) as environment:
        for batch in _batches(items):
            while not _put(environment, batch):
                size *= 2
                environment.set_mapsize(size)
            count += len(batch)
        environment.sync(True)
    return count


def _batches(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, PUTS_PER_TRANSACTION)):
        yield batch


def _put(environment: lmdb.Environment, batch: list[tuple[str, bytes]]) -> bool:
    """Writes a batch in one transaction; False, and nothing written, when the map is full."""
    try:
        with environment.begin(write=True) as transaction:
            for key, value in batch:
                if not transaction.put(key.encode(), value, overwrite=False):
                    raise UserError(
                        f"key {key!r} comes twice",
                        got="two frames of one path",
                        expected="one path per frame",
                        next_step="rename one of the videos",
                    )
    except lmdb.MapFullError:
        return False
    return True


def _replace_folder(new: Path, path: Path) -> None:
    """Puts an LMDB in place so that a kill leaves the old one or the new one: in a folder that is there, its
    one file is replaced."""
    if not path.exists():
        replace(new, path)
        return
    replace(new / "data.mdb", path / "data.mdb")
    (path / "lock.mdb").unlink(missing_ok=True)  # a host's; it counts the old file's transactions
    shutil.rmtree(new)


def write_index(
    folder: Path, name: str, videos: Iterable[Video], *, beside: Mapping[str, Any] | None = None
) -> Path:
    """Writes ``<folder>/<name>.json`` in the host's format, atomically.

    Args:
        folder: The host's ``dataset_json_folder``.
        name: Dataset; the videos' own ``dataset`` is not read.
        videos: In any order; every group gets all three splits, for hosts fail on an absent one.
        beside: What else the file says of the dataset, under keys of its own; hosts read only ``name``.

    Raises:
        UserError: Two videos of one group, split and compression have the same name.
    """
    groups: dict[str, dict[str, Any]] = {}
    for video in videos:
        splits = groups.setdefault(video.group, {split: {} for split in SPLITS})
        place = splits[video.split]
        if video.compression is not None:
            for split in SPLITS:
                splits[split].setdefault(video.compression, {})
            place = place[video.compression]
        if video.name in place:
            raise UserError(
                f"video {video.id!r} comes twice in split {video.split!r}",
                got="two videos of one name",
                expected="one name per video in a label group",
                next_step="rename one of them",
            )
        place[video.name] = {"label": video.label_name, "frames": list(video.frames)}
    return write_json(Path(folder) / f"{name}.json", {name: groups, **(beside or {})})
