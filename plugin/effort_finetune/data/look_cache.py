"""Looks of the pictures of a folder, kept from run to run: a picture of other size or time is read again."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from effort_finetune.core.progress import bar
from effort_finetune.data.folder_listing import Picture
from effort_finetune.data.perceptual_hash import look

logger = logging.getLogger(__name__)

_VERSION = 1  # of the hash; another one starts another file
_TABLE = (
    "CREATE TABLE IF NOT EXISTS looks "
    "(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, digest BLOB, look BLOB) WITHOUT ROWID"
)
_BATCH = 4096


def cache_file(folder: Path) -> Path:
    """Where the looks of a folder are kept; the file may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    key = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return Path(root) / "effort-finetune" / "folders" / f"{key}.v{_VERSION}.sqlite"


def looks_of(folder: Path, pictures: Sequence[Picture], *, desc: str) -> list[tuple[bytes, bytes | None]]:
    """Digest of the bytes and look of each picture, read where the cache does not know it.

    Args:
        folder: The dataset's folder.
        pictures: Pictures below it; size and time decide whether what is kept still holds.
        desc: The words before the progress bar.

    Returns:
        ``(digest, look)`` of each; the look is None where there is none, the digest empty where the file
        cannot be read.
    """
    known = _read(folder)
    found: dict[str, tuple[bytes, bytes | None]] = {}
    unknown = []
    for picture in pictures:
        kept = known.get(picture.path)
        if kept is not None and kept[:2] == (picture.size, picture.mtime_ns):
            found[picture.path] = kept[2:]
        else:
            unknown.append(picture)
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads,  # decoding releases the interpreter
        bar(total=len(unknown), desc=desc, unit="picture") as progress,
    ):
        for start in range(0, len(unknown), _BATCH):
            batch = unknown[start : start + _BATCH]
            read = dict(zip((p.path for p in batch), threads.map(partial(_look, folder), batch), strict=True))
            _write(folder, batch, read)
            found |= read
            progress.update(len(batch))
    return [found[picture.path] for picture in pictures]


def _look(folder: Path, picture: Picture) -> tuple[bytes, bytes | None]:
    try:
        data = (folder / picture.path).read_bytes()
    except OSError:
        return b"", None
    return hashlib.blake2b(data, digest_size=16).digest(), look(data)


def _read(folder: Path) -> dict[str, tuple[int, int, bytes, bytes | None]]:
    file = cache_file(folder)
    if not file.is_file():
        return {}
    try:
        with closing(sqlite3.connect(file, timeout=10)) as base:
            rows = base.execute("SELECT path, size, mtime_ns, digest, look FROM looks")
            return {path: (size, time, digest, seen) for path, size, time, digest, seen in rows}
    except sqlite3.Error as error:
        logger.warning("cache %s cannot be read (%s): the pictures are read again", file, error)
        return {}


def _write(folder: Path, pictures: Sequence[Picture], found: dict[str, tuple[bytes, bytes | None]]) -> None:
    file = cache_file(folder)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=10)) as base, base:
            base.execute(_TABLE)
            base.executemany(
                "INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?)",
                [(p.path, p.size, p.mtime_ns, *found[p.path]) for p in pictures],
            )
    except (sqlite3.Error, OSError) as error:
        logger.warning("looks of pictures are not kept: %s (%s)", file, error)
