"""Metrics of one training batch and running averages."""

from __future__ import annotations

import numpy as np
import torch

from .utils import binary_metrics


def calculate_metrics_for_train(
    label: torch.Tensor, output: torch.Tensor
) -> tuple[float | None, float | None, float | None, float | None]:
    """Compute the metrics of one training batch.

    Args:
        label: int [B], 0 real; every value above 0 is fake.
        output: Logits [B, 2], or the probability of fake [B] or [B, 1].

    Returns:
        ``(auc, eer, acc, ap)``; all but ``acc`` are None when the batch holds one class.
    """
    scores = output.detach().float()
    two_logits = scores.ndim == 2 and scores.shape[1] == 2
    prob = torch.softmax(scores, dim=1)[:, 1] if two_logits else scores.reshape(-1)
    target = (label.detach().cpu().numpy().reshape(-1) > 0).astype(np.int64)
    metrics = binary_metrics(target, prob.cpu().numpy().astype(np.float64))
    return metrics["auc"], metrics["eer"], metrics["acc"], metrics["ap"]


class Recorder:
    """Running average of a scalar; a value that could not be computed (None) does not count."""

    def __init__(self) -> None:
        self.sum = 0.0
        self.num = 0

    def update(self, item: float | torch.Tensor | None, num: int = 1) -> None:
        """Add ``item``, the mean of ``num`` samples. A tensor is detached, so that no graph is kept."""
        if item is None:
            return
        self.sum += float(item.detach() if isinstance(item, torch.Tensor) else item) * num
        self.num += num

    def average(self) -> float | None:
        """Return the mean so far, None when nothing was recorded."""
        return self.sum / self.num if self.num else None

    def clear(self) -> None:
        """Forget everything."""
        self.sum, self.num = 0.0, 0
