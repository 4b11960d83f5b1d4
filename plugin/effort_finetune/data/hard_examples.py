"""Hard-example mining: a share of an epoch are frames that had a high loss when they were last seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class HardExamples:
    """Remembers the loss of each training frame, and draws by it.

    An epoch is ordered by the losses known when it begins, so that it can be taken up in its middle.

    Args:
        frames: Number of training frames.
        share: Of an epoch's frames that are drawn by their loss.
    """

    def __init__(self, frames: int, share: float) -> None:
        self.share = share
        self.known = torch.full((frames,), -1.0)  # not seen yet
        self._at_begin = self.known.clone()

    def note(self, rows: Tensor, losses: Tensor) -> None:
        """Takes in the losses ``[B]`` of rows ``[B]``."""
        self.known[rows.cpu()] = losses.detach().float().cpu()

    def epoch_done(self) -> None:
        """Lets what is known now decide about the next epoch."""
        self._at_begin = self.known.clone()

    def mixed_in(self, order: Tensor, draws: torch.Generator) -> Tensor:
        """Returns an epoch's order with its last share replaced by hard frames, shuffled.

        They are drawn with a probability in proportion to their loss, no frame twice as long as there are
        enough; in the first epoch, of which nothing is known, the order stays as it is.
        """
        weights = self._at_begin.clamp_min(0)
        number, usable = round(self.share * len(order)), int((weights > 0).sum())
        if not number or not usable:
            return order
        drawn = torch.multinomial(weights.double(), number, replacement=number > usable, generator=draws)
        mixed = torch.cat([order[: len(order) - number], drawn])
        return mixed[torch.randperm(len(mixed), generator=draws)]

    def state_dict(self) -> dict[str, Any]:
        """Returns the losses known now and when the epoch began."""
        return {"known": self.known.clone(), "at_begin": self._at_begin.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores :meth:`state_dict`."""
        self.known, self._at_begin = state["known"].clone(), state["at_begin"].clone()
