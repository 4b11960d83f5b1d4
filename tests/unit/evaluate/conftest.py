"""Toy rows, scores and detectors: what the evaluate room is handed, without data or a host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toyhost import EMBEDDED
from toytower import save_toy_weights

from effort_finetune.evaluate.predictions import Scores, cross_entropy, probability
from effort_finetune.host import open_host

from .bench import Bench


@dataclass(frozen=True)
class Row:
    video: str
    label: int = 0
    path: str = "D\\real\\frames\\v\\000.png"
    dataset: str = "D"


def make_scores(logit, label, index=None, missing=()) -> Scores:
    logit = np.asarray(logit, dtype=np.float64)
    label = np.asarray(label, dtype=np.int64)
    index = np.arange(len(logit)) if index is None else np.asarray(index)
    return Scores(index, probability(logit), logit, label, cross_entropy(logit, label), list(missing))


class MeanDetector(nn.Module):
    """Logits (0, mean of the image): what it answers is known beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.batches: list[dict] = []

    def forward(self, data_dict, inference=False):
        self.batches.append({"keys": set(data_dict), "inference": inference, "grad": torch.is_grad_enabled()})
        fake = data_dict["image"].mean(dim=(1, 2, 3)) * self.scale
        cls = torch.stack([torch.zeros_like(fake), fake], dim=1)
        return {"cls": cls, "prob": cls.softmax(1)[:, 1], "feat": cls}


def batch(values, labels, index, missing=()):
    image = torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return {
        "image": image,
        "label": torch.tensor(labels, dtype=torch.int64),
        "landmark": None,
        "mask": None,
        "index": torch.tensor(index, dtype=torch.int64),
        "missing": torch.tensor(list(missing), dtype=torch.int64),
    }


@pytest.fixture
def detector():
    return MeanDetector()


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(open_host(EMBEDDED), tmp_path / "data")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny Effort checkpoint with random weights."""
    return save_toy_weights(tmp_path_factory.mktemp("weights") / "effort.pth", sharper=20)
