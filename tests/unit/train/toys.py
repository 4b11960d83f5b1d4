"""A detector of a few weights and loaders in memory: what the loop needs to know of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ToyDetector(nn.Module):
    """Linear logits of 4-value "images", under the host's detector contract."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, data: dict[str, Any], inference: bool = False) -> dict[str, Tensor]:
        logits = self.head(data["image"].flatten(1))
        return {"cls": logits, "prob": logits.softmax(1)[:, 1], "feat": data["image"].flatten(1)}

    def get_losses(self, data: dict[str, Any], predictions: dict[str, Tensor]) -> dict[str, Tensor]:
        each = F.cross_entropy(predictions["cls"], data["label"], reduction="none")
        parts = {"real": each[data["label"] == 0].detach(), "fake": each[data["label"] == 1].detach()}
        return {"overall": each.mean(), **{k: v.mean() for k, v in parts.items() if len(v)}}


def batch(size: int, seed: int, *, missing: Sequence[int] = ()) -> dict[str, Any]:
    """A batch of ``size`` frames whose first value tells the class."""
    noise = torch.Generator().manual_seed(seed)
    label = torch.arange(size) % 2
    image = torch.randn(size, 1, 2, 2, generator=noise)
    image[:, 0, 0, 0] += 2.0 * label - 1.0
    return {
        "image": image,
        "label": label,
        "index": torch.arange(size),
        "landmark": None,
        "mask": None,
        "missing": torch.tensor(missing, dtype=torch.int64),
    }


def joined(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One large batch of several."""
    keys = ("image", "label", "index", "missing")
    return {"landmark": None, "mask": None, **{k: torch.cat([b[k] for b in batches]) for k in keys}}
