"""Running a detector over a dataset as the settings say: batches, loader processes, seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from effort_finetune.config import Settings
from effort_finetune.data.frames import FrameDataset
from effort_finetune.data.loader import make_loader
from effort_finetune.evaluate.predictions import Scores, score


def score_dataset(
    model: nn.Module,
    dataset: FrameDataset,
    settings: Settings,
    *,
    autocast: torch.dtype | None,
    desc: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores:
    """Scores every readable frame of a dataset where the model is; see :func:`predictions.score`.

    Args:
        model: A DeepfakeBench detector.
        dataset: Its rows are scored.
        settings: ``test_batchSize``, ``workers`` and ``manualSeed`` are read.
        autocast: As for :func:`predictions.score`.
        desc: Words before the progress bar.
        should_stop: As for :func:`predictions.score`.
    """
    device = next(model.parameters()).device
    loader = make_loader(
        dataset,
        batch_size=settings.test_batchSize,
        workers=settings.workers,
        seed=settings.manualSeed,
        pin_memory=device.type == "cuda",
    )
    return score(model, loader, device=device, autocast=autocast, desc=desc, should_stop=should_stop)
