"""A hash of a picture's look: the same after another compression or size, another for another person.

The signs of 256 low frequencies of the cosine transform against their median, without the lowest two of each
direction, which light and the outline of an aligned face decide. A mirrored picture has its odd horizontal
frequencies negated and their median is near 0, so that its hash follows from the picture's.
``benchmarks/near_duplicates.py`` measures how far apart persons are and which copies are found.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from effort_finetune.data.decode import decode
from effort_finetune.data.picture_header import Unreadable

BITS = 256
NEAR = 16  # bits in which two pictures of one look may differ
_SIDE, _LOW, _KEPT = 64, 2, 16
_BANDS = NEAR + 1  # of two hashes that differ in at most NEAR bits, one band is equal
#: Bits of the odd horizontal frequencies.
_ODD = np.packbits(np.tile((np.arange(_KEPT) + _LOW) % 2, _KEPT))
_FLAT = 2.0  # standard deviation of grey values below which there is nothing to see


def look(data: bytes) -> bytes | None:
    """The hash of an encoded picture, 32 bytes; None where it cannot be decoded or is of one tone."""
    try:
        return look_of(cv2.cvtColor(decode(data), cv2.COLOR_RGB2GRAY))
    except Unreadable:
        return None


def look_of(grey: np.ndarray) -> bytes | None:
    """The hash of a grey picture, ``uint8[H, W]``; None for one of a single tone."""
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if float(small.std()) < _FLAT:
        return None
    waves = cv2.dct(small)[_LOW : _LOW + _KEPT, _LOW : _LOW + _KEPT].ravel()
    return np.packbits(waves > np.median(waves)).tobytes()


def distance(first: bytes, second: bytes) -> int:
    """Number of bits in which two hashes differ, 0 to 256."""
    return (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).bit_count()


def mirrored(value: bytes) -> bytes:
    """The hash of the same picture mirrored, up to a few bits."""
    return (np.frombuffer(value, np.uint8) ^ _ODD).tobytes()


def near_pairs(hashes: Sequence[bytes | None], *, near: int = NEAR) -> Iterator[tuple[int, int]]:
    """Yields the positions of pictures that look the same, or the same when one is mirrored.

    Pictures of equal hash come as a chain of pairs, so that a thousand copies are 999 pairs.

    Args:
        hashes: One a picture; None is near nothing.
        near: Largest number of bits that differ, at most :data:`NEAR`.
    """
    equal: dict[bytes, list[int]] = defaultdict(list)
    for place, value in enumerate(hashes):
        if value is not None:
            equal[value].append(place)
    for places in equal.values():
        yield from itertools.pairwise(places)
    if len(equal) < 2:
        return
    firsts = [places[0] for places in equal.values()]
    table = np.frombuffer(b"".join(equal), np.uint8).reshape(-1, BITS // 8)
    for i, j in sorted(_close(np.concatenate([table, table ^ _ODD]), len(table), near)):
        yield firsts[i], firsts[j]


def _close(table: NDArray[np.uint8], count: int, near: int) -> set[tuple[int, int]]:
    """Pairs of the first ``count`` rows that are near, or near the other's mirrored row behind them."""
    bits = np.unpackbits(table, axis=1)
    words = np.ascontiguousarray(table).view(np.uint64)
    seen: set[tuple[int, int]] = set()
    for band in np.array_split(np.arange(BITS), _BANDS):
        keys = bits[:, band] @ (1 << np.arange(len(band), dtype=np.int64))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        # Neighbours in order, then the next but one, and so on, as long as any two have the band in common.
        for step in range(1, len(order)):
            same = np.flatnonzero(keys[step:] == keys[:-step])
            if not len(same):
                break
            first, second = order[same], order[same + step]
            # Two mirrored ones are as near as the two themselves; a picture's own mirror is no other picture.
            other = (np.minimum(first, second) < count) & (first % count != second % count)
            first, second = first[other], second[other]
            close = _ones(np.bitwise_xor(words[first], words[second])) <= near
            pairs = np.sort([first[close] % count, second[close] % count], axis=0)
            seen.update(zip(*pairs.tolist(), strict=True))
    return seen


def _ones(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words).sum(axis=-1, dtype=np.int64)
    return np.unpackbits(words.view(np.uint8), axis=-1).sum(axis=-1, dtype=np.int64)  # numpy 1
