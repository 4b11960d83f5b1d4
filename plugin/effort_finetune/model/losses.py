"""The training loss: cross-entropy, and the paper's two regularisers at their exact low cost.

Sources: arXiv 2411.15633, eq. 4 (orthogonality), eq. 6 (singular values), eq. 7 (their sum, each
averaged over the decomposed layers). The released code leaves both regularisers out of its loss;
``orth_form: released`` is the definition it holds in its unused methods.

Exact forms. Let ``U_r [n, p-k]`` be the left vectors of ``main``, ``U0 [n, k]`` the residual's
initial ones, ``Q [n, p]`` an orthonormal basis of ``span(U_r, U0)``, ``D = U - U0``,
``A = U0^T D`` and ``B = D^T D``. Then, as U_r and U0 are orthonormal,

    ||[U_r U]^T [U_r U] - I||_F^2 = ||A + A^T + B||_F^2 + 2 (||Q^T D||_F^2 - ||A||_F^2)

which is O(n k^2) where ``Q`` is square (``||Q^T D||^2 = tr B``), and has none of the cancellation
of ``||U^T U||^2 + k - 2 ||U0^T U||^2``. Likewise ``||main + R||_F^2 - ||main||_F^2 =
2 <main, R> + ||R||_F^2`` needs no dense residual.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from effort_finetune.config import Loss


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
    weights = None if class_weights is None else class_weights.to(logits.device, torch.float32)
    wide = logits.float() if logits.dtype != torch.float64 else logits
    if weights is not None:
        weights = weights.to(wide.dtype)
    return F.cross_entropy(wide, labels, weight=weights, label_smoothing=label_smoothing)


def per_class_losses(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Plain cross-entropy of the real and of the fake samples, detached, for the log.

    Returns:
        ``{"real": scalar, "fake": scalar}``, without the class that the batch does not hold.
    """
    with torch.no_grad():
        each = F.cross_entropy(logits.detach().float(), labels, reduction="none")
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


def combine(classification: Tensor, orth: Tensor | None, ksv: Tensor | None, settings: Loss) -> Tensor:
    """Returns ``cls + orth_weight * orth + ksv_weight * ksv`` (eq. 7), absent terms left out."""
    total = classification
    if orth is not None:
        total = total + settings.orth_weight * orth
    if ksv is not None:
        total = total + settings.ksv_weight * ksv
    return total
