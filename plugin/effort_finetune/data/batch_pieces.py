"""Batches cut into pieces, where not all of their frames fit into memory at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

Batch = Mapping[str, Any]


def pieces(batches: Sequence[Batch], frames: int | None) -> list[Batch]:
    """Cuts batches into pieces of at most so many frames; ``None`` leaves them whole."""
    if frames is None:
        return list(batches)
    return [piece(b, slice(i, i + frames)) for b in batches for i in range(0, len(b["label"]), frames)]


def piece(batch: Batch, part: slice) -> Batch:
    """Returns some frames of a batch; what is said of the whole batch stays."""
    size = len(batch["label"])
    # What lists rows that could not be read has no frames to share out.
    return {
        name: value[part]
        if isinstance(value, (Tensor, list)) and len(value) == size and name != "missing"
        else value
        for name, value in batch.items()
    }
