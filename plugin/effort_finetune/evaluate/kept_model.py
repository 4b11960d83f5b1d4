"""A model that stays in memory from one evaluation to the next: many datasets read its weights once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.core.files import mark_of

if TYPE_CHECKING:
    from torch import nn

    from effort_finetune.config import Settings


class KeptModel:
    """Keeps the last model that was built; one of other settings or of a changed file takes its place."""

    def __init__(self) -> None:
        self._key: Any = None
        self._model: nn.Module | None = None

    def get(self, settings: Settings, weights: Path | str | None, make: Callable[[], nn.Module]) -> nn.Module:
        """Returns the model of these settings and weights, made anew where it is not the one that is kept.

        Args:
            settings: Of the evaluation; which datasets it scores does not change its model.
            weights: The file; ``None`` takes ``settings.pretrained_weights``. A folder is read every time.
            make: Builds the model.

        Raises:
            UserError: What ``make`` raises.
        """
        path = Path(str(weights or settings.pretrained_weights)).expanduser()
        mark = mark_of(path) if path.is_file() else None
        tree = {**settings.to_dict(), "test_dataset": None}
        key = mark and (path.resolve(), mark, tree)
        if self._model is None or key is None or key != self._key:
            self.drop()  # first: two of them may not fit into memory
            self._model, self._key = make(), key
        return self._model

    def drop(self) -> None:
        """Frees the model."""
        self._key = self._model = None
