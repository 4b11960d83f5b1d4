"""Cross-entropy."""

from __future__ import annotations

import torch
from metrics.registry import LOSSFUNC
from torch.nn import functional as F

from .abstract_loss_func import AbstractLossClass


@LOSSFUNC.register_module(module_name="cross_entropy")
class CrossEntropyLoss(AbstractLossClass):
    """Mean cross-entropy of logits [B, C] and class numbers [B]."""

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean over the batch, a scalar."""
        return F.cross_entropy(inputs, targets)
