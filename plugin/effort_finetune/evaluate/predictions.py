"""Running a detector over a loader: one probability and one logit a frame, nothing else kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effort_finetune.core.interrupt import Interrupted
from effort_finetune.core.progress import track

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Scores of the frames that could be read, sorted by their index in the dataset.

    Attributes:
        index: ``int64[N]``, position in the dataset.
        prob: ``float64[N]``, softmax probability of fake, computed in float64 from float32 logits.
        logit: ``float64[N]``, fake logit minus real logit (the log-odds of ``prob``).
        label: ``int64[N]``, 0 real, 1 fake.
        loss: Mean cross-entropy of the frames in nats: ``overall``, ``real``, ``fake``
            (``None`` where there is no such frame or it is not finite).
        missing: Indices of the frames that could not be read, ascending.
    """

    index: NDArray[np.int64]
    prob: NDArray[np.float64]
    logit: NDArray[np.float64]
    label: NDArray[np.int64]
    loss: dict[str, float | None]
    missing: list[int]


def score(
    model: nn.Module,
    loader: Iterable[Mapping[str, Any]],
    *,
    device: torch.device | str,
    autocast: torch.dtype | None = None,
    desc: str = "scoring",
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores:
    """Scores every readable frame of a loader in inference mode.

    The model is put into eval mode and back into the mode it was in. Features are dropped batch
    by batch, so memory does not grow with the dataset.

    Args:
        model: A DeepfakeBench detector: ``model(batch, inference=True)['cls']`` is ``[B, 2]`` logits
            (real, fake).
        loader: Batches of :func:`effort_finetune.data.loader.make_loader`.
        device: Where the model is.
        autocast: ``torch.bfloat16`` or ``torch.float16``; ``None`` runs in the weights' own precision.
        desc: Words before the progress bar.
        should_stop: Asked before each batch; true ends the scoring with :class:`Interrupted`.

    Raises:
        Interrupted: If ``should_stop`` said so.
        ValueError: If the detector's ``cls`` is not ``[B, 2]``.
    """
    device = torch.device(device)
    indices, differences, labels, missing = [], [], [], []
    was_training = model.training
    model.eval()
    # Effort merges its residuals while its weights are constant; other detectors have nothing to merge.
    merged = getattr(model, "merged", nullcontext)
    try:
        with torch.inference_mode(), _autocast(device, autocast), merged():
            for number, batch in enumerate(track(loader, desc=desc, unit="batch"), start=1):
                if should_stop():
                    raise Interrupted
                logger.debug("%s: batch %d, %d frames", desc, number, len(batch["index"]))
                missing.extend(_indices(batch.get("missing")))
                if len(batch["index"]) == 0:
                    continue
                on_device = _to_device(batch, device)
                logits = model(on_device, inference=True)["cls"]
                if logits.ndim != 2 or logits.shape != (len(batch["index"]), 2):
                    raise ValueError(
                        f"a detector's 'cls' must be [B, 2] logits, got {tuple(logits.shape)} "
                        f"for {len(batch['index'])} frames"
                    )
                # Subtracting after the conversion keeps what float32 logits hold; MPS has no float64.
                wide = logits.float().cpu().double()
                indices.append(_array(batch["index"], np.int64))
                differences.append((wide[:, 1] - wide[:, 0]).numpy())
                # A host may number its forgery methods; every label >= 1 is a fake.
                labels.append((_array(batch["label"], np.int64) >= 1).astype(np.int64))
    finally:
        model.train(was_training)
    index = _concatenate(indices, np.int64)
    order = np.argsort(index, kind="stable")
    logit = _concatenate(differences, np.float64)[order]
    label = _concatenate(labels, np.int64)[order]
    return Scores(
        index=index[order],
        prob=probability(logit),
        logit=logit,
        label=label,
        loss=cross_entropy(logit, label),
        missing=sorted(missing),
    )


def probability(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the softmax probability of fake for ``logit = z_fake - z_real``, without overflow."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def cross_entropy(logit: NDArray[np.float64], label: NDArray[np.int64]) -> dict[str, float | None]:
    """Returns the mean two-class cross-entropy in nats over all, real and fake frames."""
    with np.errstate(invalid="ignore"):  # a logit that is not finite has its null and reason below
        per_frame = np.logaddexp(0.0, np.where(label == 1, -logit, logit))
    parts = {"overall": per_frame, "real": per_frame[label == 0], "fake": per_frame[label == 1]}
    return {
        name: float(part.mean()) if len(part) and np.isfinite(part).all() else None
        for name, part in parts.items()
    }


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


def _indices(value: torch.Tensor | None) -> list[int]:
    return [] if value is None else [int(i) for i in value]


def _array(value: torch.Tensor, dtype: type) -> NDArray[Any]:
    return value.cpu().numpy().astype(dtype)


def _concatenate(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype=dtype)
