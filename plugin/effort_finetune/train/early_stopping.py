"""Stops a run whose validation metric no longer improves."""

from __future__ import annotations

from typing import Any


class EarlyStopping:
    """Counts epochs without improvement of the selection metric.

    Args:
        patience: Epochs without improvement that end the run; ``None`` never ends it.
        min_delta: What counts as an improvement must be larger than this.
        higher_is_better: Direction of the metric.
    """

    def __init__(
        self, patience: int | None, min_delta: float = 0.0, *, higher_is_better: bool = True
    ) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.sign = 1.0 if higher_is_better else -1.0
        self.best: float | None = None
        self.waited = 0

    def update(self, value: float | None) -> None:
        """Takes an epoch's metric.

        An epoch whose metric cannot be computed (``None``) counts as one without improvement:
        it brings no evidence that going on helps.
        """
        if value is not None and (self.best is None or self.sign * (value - self.best) > self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`."""
        self.best, self.waited = state["best"], state["waited"]
