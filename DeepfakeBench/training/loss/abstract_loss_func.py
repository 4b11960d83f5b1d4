"""What every loss of the bench offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class AbstractLossClass(nn.Module, ABC):
    """A loss over predictions and targets."""

    @abstractmethod
    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a batch."""
