"""Counts in sentences: ``1 source``, ``2 sources``."""

from __future__ import annotations


def counted(count: int, one: str, several: str | None = None) -> str:
    """A number with its noun, and whatever else depends on the number.

    Args:
        count: How many.
        one: What follows 1, ``video lists no frame``.
        several: What follows other numbers, ``videos list no frame``; ``one`` with an s when left out.
    """
    return f"{count} {worded(count, one, several)}"


def worded(count: int, one: str, several: str | None = None) -> str:
    """The same without the number."""
    return one if count == 1 else several or f"{one}s"
