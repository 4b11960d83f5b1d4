"""Measuring a model on a loader that a host made: no frame index in its batches, only an order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from effort_finetune.core.errors import RunFailure
from effort_finetune.core.metrics import METRICS
from effort_finetune.core.precision import Precision
from effort_finetune.evaluate.dataset_block import measure
from effort_finetune.evaluate.dataset_results import DatasetResult
from effort_finetune.evaluate.predictions import Scores, cross_entropy, score

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset
    from effort_finetune.host import Job


def measure_loader(
    model: nn.Module,
    loader: DataLoader[Any],
    frames: FrameDataset,
    job: Job,
    *,
    name: str,
    device: torch.device,
    precision: Precision,
    samples: int = 0,
    folder: Path | None = None,
) -> DatasetResult:
    """Scores a host's test loader and measures it as every evaluation does.

    Args:
        model: The detector, on ``device``.
        loader: In the order of its dataset.
        frames: Its rows, of :func:`~effort_finetune.guest.loader_frames.loader_frames`.
        job: Settings and host.
        name: Dataset.
        device: Where the model is.
        precision: Arithmetic of the forward pass.
        samples: Resamples of the intervals.
        folder: For ``scores/``; ``None`` writes none.

    Raises:
        RunFailure: If the loader gives more frames than its dataset lists.
    """
    start = time.perf_counter()
    scores = score(model, _indexed(loader), device=device, autocast=precision.dtype, desc=name)
    if len(scores.index) and scores.index[-1] >= len(frames.rows):
        raise RunFailure(
            f"{name}: the host's loader gave {len(scores.index)} samples, its dataset lists "
            f"{len(frames.rows)}; next: train with the host's own trainer (trainer: null)"
        )
    return measure(
        job.host,
        job.settings,
        name,
        "test",
        frames,
        _without_substitutes(scores, frames),
        bootstrap_samples=samples,
        seconds=time.perf_counter() - start,
        output_dir=folder,
    )


def numbers_of(result: DatasetResult) -> dict[str, float]:
    """Returns every number of a dataset that could be computed, those of the host after ``host_``."""
    names = ("loss", *METRICS, *(f"video_{metric}" for metric in METRICS))
    values = {name: result.metric(name) for name in names}
    own = (result.block["host_metrics"] or {}).get("values") or {}
    values |= {f"host_{name}": value for name, value in own.items()}
    return {name: value for name, value in values.items() if value is not None}


def _without_substitutes(scores: Scores, frames: FrameDataset) -> Scores:
    """Leaves out what has another label than its row: the host put another frame in its place.

    Upstream's class gives its first frame, with the label of that, for one that it cannot read; the name in
    its list stays. Such a frame is missing. What a loader of a host's leaves off at its end is, too.
    """
    listed = np.array([row.label for row in frames.rows], dtype=np.int64)
    kept = listed[scores.index] == scores.label
    missing = sorted(set(range(len(listed))) - set(scores.index[kept].tolist()))
    if not missing:
        return scores
    logit, label = scores.logit[kept], scores.label[kept]
    return replace(
        scores,
        index=scores.index[kept],
        prob=scores.prob[kept],
        logit=logit,
        label=label,
        loss=cross_entropy(logit, label),
        missing=missing,
    )


def _indexed(loader: DataLoader[Any]) -> Iterator[Mapping[str, Any]]:
    """Adds to each batch the position of its frames, which a sequential loader implies."""
    position = 0
    for batch in loader:
        size = len(batch["label"])
        if "index" in batch:
            yield batch
        else:
            yield {**batch, "index": torch.arange(position, position + size)}
        position += size
