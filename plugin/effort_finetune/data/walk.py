"""What lies below a folder, also where parts of it are links to other disks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "bmp", "webp"),
        *("tif", "tiff", "avif", "heic", "heif", "jp2", "ppm", "pgm"),
    )
)


def below(folder: Path) -> Iterator[Path]:
    """Files and folders at any depth, in order of their paths, through links, each folder before its content.

    Left out are hidden ones: what a killed run left, and the ``._*`` files macOS puts on foreign disks. A
    link to a folder that it lies in is not followed round.
    """
    yield from _below(folder, frozenset({folder.resolve()}))


def _below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        yield path
        if path.is_dir() and (real := path.resolve()) not in above:
            yield from _below(path, above | {real})


def images(folder: Path) -> list[Path]:
    """Image files in a folder itself, by their suffix in any case; hidden ones left out."""
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
