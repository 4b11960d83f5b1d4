"""What every detector of the bench offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

Batch = Mapping[str, torch.Tensor | None]


class AbstractDetector(nn.Module, ABC):
    """A detector built from a configuration.

    A batch holds ``image`` float [B, 3, H, W], ``label`` int64 [B] (0 real, 1 fake), and ``landmark`` and
    ``mask``, which may be None.

    Attributes:
        load_report: What the detector itself read from ``config['pretrained_weights']`` while it was built;
            None when it reads nothing, and the caller loads the file into it.
    """

    load_report: Any = None

    def __init__(self, config: Mapping[str, Any] | None = None, load_param: bool | str = False) -> None:
        super().__init__()
        self.config = config
        self.load_param = load_param

    @abstractmethod
    def build_backbone(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the feature extractor."""

    @abstractmethod
    def build_loss(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the loss function."""

    @abstractmethod
    def features(self, data_dict: Batch) -> torch.Tensor:
        """Return the features [B, d] of a batch."""

    @abstractmethod
    def classifier(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, 2] of features [B, d]."""

    @abstractmethod
    def forward(self, data_dict: Batch, inference: bool = False) -> dict[str, torch.Tensor]:
        """Return ``cls`` logits [B, 2], ``prob`` of fake [B] and ``feat`` [B, d]."""

    @abstractmethod
    def get_losses(self, data_dict: Batch, pred_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return scalar losses by name; ``overall`` is the one to minimise."""

    @abstractmethod
    def get_train_metrics(
        self, data_dict: Batch, pred_dict: Mapping[str, torch.Tensor]
    ) -> dict[str, float | None]:
        """Return the metrics of a batch by name; None where one cannot be computed."""
