"""Pictures that two opened splits have in common under different datasets' names, byte for byte."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset


def shared_pictures(trained: FrameDataset, other: FrameDataset) -> list[tuple[str, str]]:
    """Finds the pictures of a split that are pictures of another dataset's training split.

    Only pictures of one size in bytes are read and hashed, so that the usual case costs a look at the sizes.
    Datasets of the index among themselves are left out: their frames are compared by place.

    Args:
        trained: The training split.
        other: A split that is to be new to the model.

    Returns:
        (picture of ``other``, the training picture that it is), each ``<dataset>: <path>``.
    """
    folders = [{n for n, p in d.protocol["datasets"].items() if "folder" in p} for d in (trained, other)]
    if not any(folders):
        return []
    by_size: dict[int, list[int]] = defaultdict(list)
    wanted = {size for place in range(len(other.rows)) if (size := other.stored_bytes(place))}
    for place in range(len(trained.rows)):
        if (size := trained.stored_bytes(place)) in wanted:
            by_size[size].append(place)
    digests: dict[int, list[tuple[bytes, int]]] = {}
    found = []
    for place, row in enumerate(other.rows):
        size = other.stored_bytes(place)
        alike = [
            mate
            for mate in by_size.get(size, ())
            if trained.rows[mate].dataset != row.dataset
            and (row.dataset in folders[1] or trained.rows[mate].dataset in folders[0])
        ]
        if not alike:
            continue
        if size not in digests:
            digests[size] = [(_digest(trained, mate), mate) for mate in by_size[size]]
        own, allowed = _digest(other, place), set(alike)
        mate = next((m for digest, m in digests[size] if digest == own and m in allowed), None)
        if mate is not None:
            first = trained.rows[mate]
            found.append((f"{row.dataset}: {row.path}", f"{first.dataset}: {first.path}"))
    return found


def _digest(dataset: FrameDataset, place: int) -> bytes:
    return hashlib.blake2b(dataset.encoded(place) or b"", digest_size=16).digest()
