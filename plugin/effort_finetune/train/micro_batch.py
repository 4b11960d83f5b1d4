"""How many frames go through the model at once: less memory, the same steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from effort_finetune.core.device import release_memory
from effort_finetune.train.broken_step import memory_failure
from effort_finetune.train.step_share import holds_batch_statistics


@dataclass
class MicroBatch:
    """The size of the pieces that batches are cut into, and how it came to be.

    Attributes:
        frames: Of a piece; ``None``: a batch is not cut.
        halved: Where memory ran out: place, frames that did not fit, frames from there on.
        on_halved: Called with a sentence on each of these.
    """

    frames: int | None = None
    halved: list[dict[str, Any]] = field(default_factory=list)
    on_halved: Callable[[str], None] = lambda sentence: None

    def halve(self, too_large: int, where: str, model: nn.Module, device: torch.device) -> None:
        """Takes pieces of half the size after one of so many frames did not fit.

        Raises:
            BrokenStep: If that is not possible: a frame is left, or the model's answers depend on the piece.
        """
        if too_large == 1 or holds_batch_statistics(model):
            raise memory_failure(device, too_large)
        self.frames = (too_large + 1) // 2
        self.halved.append({"at": where, "frames": too_large, "then": self.frames})
        release_memory(device)
        self.on_halved(
            f"{too_large} frames at once did not fit into memory at {where}; from here on {self.frames} go "
            "through the model at once, and steps stay what they are"
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns what a continuation needs."""
        return {"frames": self.frames, "halved": list(self.halved)}

    def load_state_dict(self, state: Mapping[str, Any], *, asked_anew: bool) -> None:
        """Restores :meth:`state_dict`; a size that is asked for anew stays."""
        self.halved = list(state["halved"])
        if not asked_anew:
            self.frames = state["frames"]
