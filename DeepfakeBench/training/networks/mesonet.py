"""MesoNet-4: Afchar, Nozick, Yamagishi and Echizen, "MesoNet: a Compact Facial Video Forgery Detection
Network", WIFS 2018, figure 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from metrics.registry import BACKBONE
from torch import nn

# Four blocks of (output channels, kernel size, pooling); together they shrink a side 32-fold.
BLOCKS = ((8, 3, 2), (8, 5, 2), (16, 5, 2), (16, 5, 4))
SHRINK = 32
HIDDEN = 16


@BACKBONE.register_module(module_name="meso4")
class Meso4(nn.Module):
    """Four convolution blocks and two linear layers, with dropout 0.5 before each.

    The paper ends in one sigmoid unit; here ``num_classes`` logits, as the bench's detectors have two.

    Args:
        config: ``num_classes``, ``inc`` (input channels, 3 by default) and ``resolution`` (pixels, 256 by
            default).

    Raises:
        ValueError: The resolution is below 32 pixels, which leaves no feature.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        side = int(config.get("resolution", 256)) // SHRINK
        if side < 1:
            raise ValueError(f"MesoNet-4 needs a resolution of at least {SHRINK}, got {config['resolution']}")
        layers: list[nn.Module] = []
        channels = int(config.get("inc", 3))
        for width, kernel, pool in BLOCKS:
            layers += [
                nn.Conv2d(channels, width, kernel, padding="same", bias=False),
                nn.ReLU(),
                nn.BatchNorm2d(width),
                nn.MaxPool2d(pool),
            ]
            channels = width
        self.blocks = nn.Sequential(*layers)
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(channels * side * side, HIDDEN), nn.LeakyReLU(0.1)
        )
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(HIDDEN, int(config["num_classes"])))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Map images [B, inc, H, W] to features [B, 16]."""
        return self.hidden(self.blocks(image))

    def classifier(self, features: torch.Tensor) -> torch.Tensor:
        """Map features [B, 16] to logits [B, num_classes]."""
        return self.head(features)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images [B, inc, H, W] to logits [B, num_classes]."""
        return self.classifier(self.features(image))
