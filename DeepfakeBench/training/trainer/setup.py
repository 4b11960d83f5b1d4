"""What train.py and test.py build alike: loaders of whole splits, and a detector with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataset.abstract_dataset import DeepfakeAbstractBaseDataset
from detectors import DETECTOR
from torch import nn
from torch.utils.data import DataLoader

from .checkpoint import load_weights


def split_loader(config: Mapping[str, Any], name: str, mode: str) -> DataLoader:
    """Return a loader of one dataset's ``val`` or ``test`` split, in its own order, without a dropped
    batch."""
    dataset = DeepfakeAbstractBaseDataset({**config, f"{mode}_dataset": name}, mode)
    return DataLoader(
        dataset,
        batch_size=config["test_batchSize"],
        num_workers=config.get("workers", 0),
        collate_fn=dataset.collate_fn,
    )


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Build ``model_name`` with ``pretrained_weights``, which are loaded here unless the detector read them
    itself."""
    model = DETECTOR[config["model_name"]](config)
    weights = config.get("pretrained_weights")
    if weights and getattr(model, "load_report", None) is None:
        load_weights(model, weights)
    return model
