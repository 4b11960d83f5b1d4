"""MesoNet-4 as a detector of the bench: the small baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from loss import LOSSFUNC
from metrics.base_metrics_class import calculate_metrics_for_train
from metrics.registry import DETECTOR
from networks import BACKBONE
from torch import nn

from .base_detector import AbstractDetector, Batch


@DETECTOR.register_module(module_name="meso4")
class Meso4Detector(AbstractDetector):
    """MesoNet-4 trained from scratch with cross-entropy.

    Args:
        config: Reads ``backbone_name, backbone_config, resolution, loss_func``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.backbone = self.build_backbone(config)
        self.loss_func = self.build_loss(config)

    def build_backbone(self, config: Mapping[str, Any]) -> nn.Module:
        """Build ``backbone_name`` from ``backbone_config`` and ``resolution``."""
        backbone_class = BACKBONE[config["backbone_name"]]
        return backbone_class({**config["backbone_config"], "resolution": config["resolution"]})

    def build_loss(self, config: Mapping[str, Any]) -> nn.Module:
        """Build ``loss_func``."""
        return LOSSFUNC[config["loss_func"]]()

    def features(self, data_dict: Batch) -> torch.Tensor:
        """Return the features [B, 16] of ``image``."""
        return self.backbone.features(data_dict["image"])

    def classifier(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, 2] of features [B, 16]."""
        return self.backbone.classifier(features)

    def forward(self, data_dict: Batch, inference: bool = False) -> dict[str, torch.Tensor]:
        """Return ``cls`` [B, 2], ``prob`` [B] and ``feat`` [B, 16]; inference changes nothing for MesoNet."""
        features = self.features(data_dict)
        logits = self.classifier(features)
        return {"cls": logits, "prob": torch.softmax(logits, dim=1)[:, 1], "feat": features}

    def get_losses(self, data_dict: Batch, pred_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the cross-entropy as ``overall`` and ``cls``."""
        loss = self.loss_func(pred_dict["cls"], data_dict["label"])
        return {"overall": loss, "cls": loss}

    def get_train_metrics(
        self, data_dict: Batch, pred_dict: Mapping[str, torch.Tensor]
    ) -> dict[str, float | None]:
        """Return ``acc, auc, eer, ap`` of the batch."""
        auc, eer, acc, ap = calculate_metrics_for_train(data_dict["label"], pred_dict["cls"])
        return {"acc": acc, "auc": auc, "eer": eer, "ap": ap}
