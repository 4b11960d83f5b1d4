"""The running average of what is trained: measured, selected and saved in place of the last weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of some parameters.

    After step ``t`` (from 0) the decay is ``min(decay, (1 + t) / (10 + t))``, so that the first steps do not
    weigh as much as all that follow.

    Args:
        model: What is trained.
        names: The parameters.
        decay: Share of the average that a step leaves.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], decay: float) -> None:
        parameters = dict(model.named_parameters())
        self._live = {name: parameters[name] for name in names if name in parameters}
        self.decay, self.steps = decay, 0
        self.average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes the present weights in."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, parameter in self._live.items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the context the model has the averaged weights."""
        before = {name: parameter.detach().clone() for name, parameter in self._live.items()}
        try:
            self._put(self.average)
            yield
        finally:
            self._put(before)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages, on the CPU, and the steps behind them."""
        return {
            "steps": self.steps,
            "average": {k: v.detach().to("cpu", copy=True) for k, v in self.average.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores :meth:`state_dict`."""
        self.steps = state["steps"]
        for name, value in state["average"].items():
            self.average[name].copy_(value)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(values[name])
