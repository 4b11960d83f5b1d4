"""The tests' CLIP vision tower of two layers with random weights, and the detector on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector

#: Pixels of the tower's pictures; the head's width in settings.
SIZE, HEAD = 32, 16
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 16,
}


def toy_detector(seed: int = 3, **settings: Any) -> EffortFinetuneDetector:
    """Builds a detector over a random tower; the seed is torch's own and stays where it is then."""
    torch.manual_seed(seed)
    config = {"resolution": SIZE, "head_width": HEAD, **settings}
    return EffortFinetuneDetector(config, tower=random_tower(SHAPE))


def save_toy_weights(path: Path, seed: int = 3, sharper: float = 1.0) -> Path:
    """Writes a tiny Effort checkpoint; ``sharper`` multiplies the head, so that scores leave one half."""
    detector = toy_detector(seed)
    with torch.no_grad():
        detector.head.weight.mul_(sharper)
    torch.save(detector.state_dict(), path)
    return path
