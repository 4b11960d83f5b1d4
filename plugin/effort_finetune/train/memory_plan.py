"""What a run says of its memory before its first step, and the pieces that it chooses by it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from effort_finetune.core import ranks
from effort_finetune.train.memory_estimate import estimate_memory

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.train.data import RunData
    from effort_finetune.train.engine import Engine
    from effort_finetune.train.features import FeatureRun


#: Bytes of weights below which a model fits wherever Python does.
SMALL = 2**24


def planned(
    engine: Engine, data: RunData, features: FeatureRun | None, settings: Settings
) -> dict[str, Any] | None:
    """Estimates the memory of a step; with ``micro_batch: auto`` sets the pieces of all processes alike.

    Args:
        engine: The run, before its first step in this process.
        data: Of the run.
        features: What stands in for the frames, if anything does.
        settings: ``train_batchSize`` and ``micro_batch`` are read.

    Returns:
        The estimate for results, in bytes; ``None`` where not even three frames fit, or the model is
        smaller than :data:`SMALL` and nobody asked.
    """
    ours, loop = ranks.current(), engine.loop
    weights = sum(p.numel() * p.element_size() for p in loop.model.parameters())
    if weights < SMALL and settings.micro_batch != "auto":
        return None
    shape = (3, data.train.resolution, data.train.resolution) if features is None else features.train.shape
    estimate = estimate_memory(loop, shape)
    batch = math.ceil(min(settings.train_batchSize, len(data.train)) / ours.size)
    if settings.micro_batch == "auto" and loop.micro.frames is None:
        # A CPU's memory is shared by the processes of a machine, a GPU's is not.
        sharing = ours.launch.local_size if loop.device.type == "cpu" else 1
        fit = 1 if estimate is None else estimate.most_frames(sharing)
        known = [frames for frames in ours.exchange(fit) if frames is not None]
        fewest = min(known, default=batch)
        loop.micro.frames = None if fewest >= batch else fewest
        engine.reports.say(f"micro_batch auto: {min(fewest, batch)} of a batch's {batch} frames at once")
    if estimate is None:
        engine.reports.warn("memory: three frames at once do not fit; what a step needs is not known")
        return None
    frames = min(loop.micro.frames or batch, batch)
    engine.reports.say(estimate.line(frames))
    return estimate.to_dict(frames)
