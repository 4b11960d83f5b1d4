"""Where the generators of a run were when its epoch began, and where a continuation takes them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from effort_finetune.core import seeding

if TYPE_CHECKING:
    from effort_finetune.train.loop import TrainingLoop


class Draws:
    """Python's, numpy's and torch's generators over the epochs of a run.

    A host's loader draws its order, and perhaps its augmentation, from the global generators: a continuation
    in the middle of an epoch puts them where the epoch began, passes the batches over that are done, and
    puts them where the last whole step left them.

    Args:
        loop: Notes the generators' state after each step.
    """

    def __init__(self, loop: TrainingLoop) -> None:
        self._loop = loop
        self._owed: Mapping[str, Any] | None = None  # the states that a resumed run takes up
        self._at_begin: Mapping[str, Any] | None = None

    def begin_epoch(self) -> None:
        """Puts the generators where the epoch began."""
        self._loop.rng = None
        if self._owed is not None:
            begun = self._owed["epoch_rng"]
            seeding.restore_state(self._owed["rng"] if begun is None else begun)
        self._at_begin = seeding.plain_state(seeding.capture())

    def take_up(self) -> None:
        """Puts the generators where the interrupted epoch was left, its batches passed over."""
        if self._owed is None:
            return
        if self._owed["epoch_rng"] is not None:  # else it is taken up at its beginning
            seeding.restore_state(self._owed["rng"])
        self._owed, self._loop.rng = None, seeding.capture()

    def end_epoch(self) -> None:
        """Says that the next state to be saved lies between two epochs."""
        self._at_begin = None

    def state_dict(self) -> dict[str, Any]:
        """Returns what a continuation needs, ``rng`` and ``epoch_rng``; plain tensors and containers."""
        if self._owed is not None:
            return dict(self._owed)
        inside = self._at_begin is not None and self._loop.rng is not None
        now = self._loop.rng if inside and self._loop.rng is not None else seeding.capture()
        return {"rng": seeding.plain_state(now), "epoch_rng": self._at_begin if inside else None}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restores :meth:`state_dict`; the generators move with the next epoch."""
        self._owed = {"rng": saved["rng"], "epoch_rng": saved["epoch_rng"]}
