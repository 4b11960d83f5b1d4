"""The towers that are compared: random CLIP ViT-L/14 of a few layers, adapted in different ways."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effort_finetune.model.backbone import random_tower
from effort_finetune.model.inject import inject
from effort_finetune.model.layers import SVDResidualLinear, residual_layers

L14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
ATTENTION = ("self_attn.*_proj",)


class Classifier(nn.Module):
    """A tower and a linear head, called with images."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(tower.config.hidden_size, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``[B, 3, 224, 224]`` to logits ``[B, 2]``."""
        return self.head(self.tower(images).pooler_output)


class DenseRebuild(nn.Module):
    """The paper's formula word for word: the dense weight is rebuilt in every forward pass."""

    def __init__(self, layer: SVDResidualLinear) -> None:
        super().__init__()
        self.main, self.bias = layer.weight_main, layer.bias
        self.U, self.S, self.V = layer.U_residual, layer.S_residual, layer.V_residual

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[..., m]`` to ``[..., n]``."""
        return F.linear(x, self.main + self.U @ torch.diag(self.S) @ self.V, self.bias)


def dense(layers: int, device: str = "cpu") -> nn.Module:
    return random_tower({**L14, "num_hidden_layers": layers}).to(device)


def effort(tower: nn.Module, rank: int = 1) -> nn.Module:
    """A copy with decomposed attention, of which only the residuals are trained."""
    tower = copy.deepcopy(tower)
    inject(tower, ATTENTION, rank)
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(name.endswith("_residual"))
    return tower


def rebuilt(tower: nn.Module) -> nn.Module:
    """A copy of an Effort tower whose layers rebuild their dense weight."""
    tower = copy.deepcopy(tower)
    modules = dict(tower.named_modules())
    for name, layer in residual_layers(tower).items():
        parent, _, attribute = name.rpartition(".")
        setattr(modules[parent], attribute, DenseRebuild(layer))
    return tower


def floor(tower: nn.Module) -> nn.Module:
    """A copy, frozen, through whose activations the gradient flows as far back as Effort needs it.

    Effort's first trained values lie in the first block's query, key and value projections: their
    biases require a gradient here, and nothing else does.
    """
    tower = copy.deepcopy(tower).requires_grad_(False)
    attention = tower.encoder.layers[0].self_attn
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.bias.requires_grad_(True)
    return tower


def lora(tower: nn.Module, rank: int) -> nn.Module:
    """A copy under PEFT's LoRA on the attention projections."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(copy.deepcopy(tower), LoraConfig(r=rank, target_modules=_PROJECTIONS))


def osf(tower: nn.Module, effective_rank: int) -> nn.Module:
    """A copy under PEFT's orthogonal subspace fine-tuning; ``effective_rank`` triplets are frozen."""
    from peft import OSFConfig, get_peft_model

    config = OSFConfig(effective_rank=effective_rank, target_modules=_PROJECTIONS)
    return get_peft_model(copy.deepcopy(tower), config)


_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj"]


class Step:
    """One training step: forward, cross-entropy, backward, Adam."""

    def __init__(self, tower: nn.Module, images: Tensor, labels: Tensor, precision: str) -> None:
        self.model = Classifier(tower).to(images.device).train()
        self.images, self.labels, self.precision = images, labels, precision
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=1e-5)

    def __call__(self) -> float:
        """Takes the step and returns its loss."""
        self.optimizer.zero_grad()
        with autocast(self.precision, self.images.device.type):
            logits = self.model(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def autocast(precision: str, device: str = "cpu") -> Any:
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if precision == "bf16" else nullcontext()


def batch(size: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Images ``[size, 3, 224, 224]`` and labels ``[size]``, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 224, 224, generator=generator)
    return images.to(device), (torch.arange(size) % 2).to(device)
