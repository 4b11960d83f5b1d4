"""Metrics of one training batch, for the progress log only; evaluation has a room of its own."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor


def batch_metrics(labels: Tensor, probabilities: Tensor) -> dict[str, float | None]:
    """Computes accuracy at 0.5, AUC, equal error rate and average precision of a batch.

    Args:
        labels: ``[B]``, 0 real and 1 fake.
        probabilities: ``[B]``, of fake.

    Returns:
        ``acc``, ``auc``, ``eer``, ``ap`` in 0 to 1; the last three are ``None`` for a batch of
        one class, for which they do not exist, and all of them for non-finite probabilities.
    """
    y = labels.cpu().numpy()
    p = probabilities.detach().cpu().numpy()
    if not np.isfinite(p).all():
        return {"acc": None, "auc": None, "eer": None, "ap": None}
    accuracy = float(((p >= 0.5) == (y == 1)).mean())
    if len(np.unique(y)) < 2:
        return {"acc": accuracy, "auc": None, "eer": None, "ap": None}
    false_positive, true_positive, _ = roc_curve(y, p)
    crossing = int(np.nanargmin(np.abs(1 - true_positive - false_positive)))
    return {
        "acc": accuracy,
        "auc": float(roc_auc_score(y, p)),
        "eer": float((false_positive[crossing] + 1 - true_positive[crossing]) / 2),
        "ap": float(average_precision_score(y, p)),
    }
