"""A detector's predictions on a whole loader."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from metrics.base_metrics_class import Recorder
from metrics.utils import get_test_metrics
from torch import nn
from tqdm import tqdm

from .device import to_device


@dataclass(frozen=True)
class Predictions:
    """What a detector said about N frames, in the loader's order.

    Attributes:
        prob: float64 [N], probability of fake.
        label: int64 [N], 0 real, 1 fake.
        losses: Mean of each of the detector's losses.
        feat: float32 [N, d], or None when features were not asked for.
    """

    prob: np.ndarray
    label: np.ndarray
    losses: dict[str, float | None]
    feat: np.ndarray | None


def predict(
    model: nn.Module,
    loader: Iterable[Any],
    device: torch.device,
    *,
    features: bool = False,
    desc: str = "test",
) -> Predictions:
    """Run a detector over a loader in evaluation mode, and put its mode back afterwards.

    Args:
        model: A detector on ``device``.
        loader: Yields batches in the contract's form.
        device: Where to compute.
        features: Whether to keep the features.
        desc: Name on the progress bar, which shows on a terminal only.
    """
    was_training = model.training
    model.eval()
    probs, labels, feats = [], [], []
    recorders: dict[str, Recorder] = {}
    try:
        for batch in tqdm(loader, desc=desc, unit="batch", leave=False, disable=None):
            data_dict = to_device(batch, device)
            with torch.no_grad():
                predictions = model(data_dict, inference=True)
            # Outside no_grad: the contract lets a detector use gradients in its losses.
            for name, value in model.get_losses(data_dict, predictions).items():
                recorders.setdefault(name, Recorder()).update(value, num=len(data_dict["label"]))
            probs.append(predictions["prob"].detach().reshape(-1).cpu().double())
            labels.append(data_dict["label"].cpu())
            if features:
                feats.append(predictions["feat"].detach().float().cpu())
    finally:
        model.train(was_training)
    return Predictions(
        prob=torch.cat(probs).numpy(),
        label=torch.cat(labels).numpy(),
        losses={name: recorder.average() for name, recorder in recorders.items()},
        feat=torch.cat(feats).numpy() if features else None,
    )


def score(predictions: Predictions, dataset: Any) -> dict[str, Any]:
    """Return ``get_test_metrics`` of predictions made on a dataset in its own order."""
    return get_test_metrics(predictions.prob, predictions.label, dataset.data_dict["image"])


def scalars(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return the metrics that are one number (or None), without the arrays."""
    return {name: value for name, value in metrics.items() if name not in ("pred", "label")}
