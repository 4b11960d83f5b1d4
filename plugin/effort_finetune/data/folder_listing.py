"""All pictures below a folder, fast, and a count of what was not taken, by reason."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from effort_finetune.data.class_words import is_aside
from effort_finetune.data.walk import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("mp4", "avi", "mov", "mkv", "webm", "m4v", "mpg", "mpeg"),
        *("wmv", "flv", "3gp", "ts", "mts", "m2ts", "gif", "ogv"),
    )
)
DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture file.

    Attributes:
        path: Below the folder, with slashes.
        size: Bytes.
        mtime_ns: Time of the last change.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class FolderListing:
    """What lies below a folder.

    Attributes:
        folder: The folder.
        pictures: In order of their paths.
        skipped: Number of files and folders that were not taken, by reason.
    """

    folder: Path
    pictures: tuple[Picture, ...]
    skipped: Mapping[str, int]

    def sha256(self) -> str:
        """A hash of names and sizes, the same wherever the folder lies."""
        lines = "".join(f"{picture.path}\n{picture.size}\n" for picture in self.pictures)
        return hashlib.sha256(lines.encode()).hexdigest()


def list_folder(folder: Path, *, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> FolderListing:
    """Lists a folder at any depth, through links, each folder once on its way down.

    Args:
        folder: The folder.
        suffixes: Of the files that are taken, in small letters.

    Raises:
        OSError: The folder itself cannot be read.
    """
    skipped: Counter[str] = Counter()
    real = os.stat(folder)
    found = _walk(str(folder), "", frozenset({(real.st_dev, real.st_ino)}), skipped, suffixes)
    pictures = tuple(sorted(found, key=lambda picture: picture.path.split("/")))
    return FolderListing(folder, pictures, dict(sorted(skipped.items())))


def _walk(
    folder: str,
    below: str,
    above: frozenset[tuple[int, int]],
    skipped: Counter[str],
    suffixes: frozenset[str],
) -> Iterator[Picture]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        if not below:
            raise
        skipped["folder that cannot be read"] += 1
        return
    for entry in entries:
        name = entry.name
        if name.startswith("."):  # also the `._*` files that macOS puts on foreign disks
            skipped["hidden"] += 1
            continue
        if not _is_utf8(name):
            skipped["name that is not UTF-8"] += 1
            continue
        try:
            if entry.is_dir():
                if is_aside(name):
                    skipped["folder of masks or landmarks"] += 1
                    continue
                status = entry.stat()
                key = (status.st_dev, status.st_ino or hash(os.path.realpath(entry.path)))
                if key in above or len(above) > DEEPEST:
                    skipped["link back to a folder above" if key in above else "deeper than 32 folders"] += 1
                    continue
                yield from _walk(entry.path, f"{below}{name}/", above | {key}, skipped, suffixes)
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix not in suffixes:
                skipped[_other(suffix)] += 1
                continue
            status = entry.stat()
        except OSError:
            skipped["link that points nowhere" if entry.is_symlink() else "file that cannot be read"] += 1
            continue
        if not entry.is_file():
            skipped["no regular file"] += 1
        elif not status.st_size:
            skipped["empty file"] += 1
        else:
            yield Picture(f"{below}{name}", status.st_size, status.st_mtime_ns)


def _other(suffix: str) -> str:
    if suffix in VIDEO_SUFFIXES:
        return "video (`effort-finetune prepare` makes pictures of it)"
    return f"no picture ({suffix})" if suffix and len(suffix) < 8 and suffix.isascii() else "no picture"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
