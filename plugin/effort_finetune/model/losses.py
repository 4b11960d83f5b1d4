"""The training loss: cross-entropy and, where their weights are not 0, the paper's regularisers.

Source: arXiv 2411.15633, eq. 7. The released code trains with the cross-entropy alone, which is
the default here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from effort_finetune.config import Loss
from effort_finetune.model.layers import wide


def classification_loss(
    logits: Tensor, labels: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy over real (0) and fake (1).

    Args:
        logits: ``[B, 2]``.
        labels: ``[B]``, int64.
        class_weights: ``[2]``; the mean is weighted by them, as in torch.
        label_smoothing: 0 to 1.

    Returns:
        A float32 (or wider) scalar.
    """
    logits = wide(logits)
    weights = None if class_weights is None else class_weights.to(logits)
    return F.cross_entropy(logits, labels, weight=weights, label_smoothing=label_smoothing)


def per_class_losses(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Plain cross-entropy of the real and of the fake samples, detached, for the log.

    Returns:
        ``{"real": scalar, "fake": scalar}``, without the class that the batch does not hold.
    """
    with torch.no_grad():
        each = F.cross_entropy(wide(logits.detach()), labels, reduction="none")
        groups = {"real": each[labels == 0], "fake": each[labels != 0]}
        return {name: losses.mean() for name, losses in groups.items() if losses.numel()}


def balanced_class_weights(real: int, fake: int) -> Tensor:
    """Returns ``[N / (2 real), N / (2 fake)]`` with ``N = real + fake``, float32.

    Raises:
        ValueError: If a class has no sample.
    """
    if real < 1 or fake < 1:
        raise ValueError(f"balanced class weights need both classes, got {real} real and {fake} fake")
    total = real + fake
    return torch.tensor([total / (2 * real), total / (2 * fake)])


def combine(classification: Tensor, terms: Mapping[str, Tensor], settings: Loss) -> Tensor:
    """Returns ``cls + orth_weight * orth + ksv_weight * ksv`` (eq. 7), absent terms left out."""
    weights = {"orth": settings.orth_weight, "ksv": settings.ksv_weight}
    total = classification
    for name, term in terms.items():
        total = total + weights[name] * term
    return total
