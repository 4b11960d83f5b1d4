"""Pictures that two opened splits have in common under different datasets' names, byte for byte."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset


class TrainedPictures:
    """The pictures of a training split, looked at once, to be found again in splits that are to be new.

    Only pictures of one size in bytes are read and hashed, so that the usual case costs a look at the sizes.
    Datasets of the index among themselves are left out: their frames are compared by place.

    Args:
        trained: The training split.
    """

    def __init__(self, trained: FrameDataset) -> None:
        self._trained = trained
        self._digests: dict[int, list[tuple[bytes, int]]] = {}
        self._found: dict[FrameDataset, list[tuple[str, str]]] = {}

    def shared_with(self, other: FrameDataset) -> list[tuple[str, str]]:
        """Finds the pictures of a split that are training pictures of another dataset.

        Returns:
            (picture of ``other``, the training picture that it is), each ``<dataset>: <path>``.
        """
        if other not in self._found:
            folders = [_folders(self._trained), _folders(other)]
            self._found[other] = list(self._shared(other, *folders)) if any(folders) else []
        return self._found[other]

    @cached_property
    def _by_size(self) -> Mapping[int, list[int]]:
        by_size: dict[int, list[int]] = defaultdict(list)
        for place in range(len(self._trained.rows)):
            by_size[self._trained.stored_bytes(place)].append(place)
        by_size.pop(0, None)  # missing ones
        return dict(by_size)

    def _shared(
        self, other: FrameDataset, folders: set[str], folders_there: set[str]
    ) -> Iterator[tuple[str, str]]:
        rows = self._trained.rows
        for place, row in enumerate(other.rows):
            size = other.stored_bytes(place)
            alike = {
                mate
                for mate in self._by_size.get(size, ())
                if rows[mate].dataset != row.dataset
                and (row.dataset in folders_there or rows[mate].dataset in folders)
            }
            if not alike:
                continue
            if size not in self._digests:
                self._digests[size] = [(_digest(self._trained, mate), mate) for mate in self._by_size[size]]
            own = _digest(other, place)
            mate = next((m for digest, m in self._digests[size] if digest == own and m in alike), None)
            if mate is not None:
                yield f"{row.dataset}: {row.path}", f"{rows[mate].dataset}: {rows[mate].path}"


def _folders(frames: FrameDataset) -> set[str]:
    """Names of its datasets that are folders and not of the index."""
    return {name for name, part in frames.protocol["datasets"].items() if "folder" in part}


def _digest(dataset: FrameDataset, place: int) -> bytes:
    return hashlib.blake2b(dataset.encoded(place) or b"", digest_size=16).digest()
