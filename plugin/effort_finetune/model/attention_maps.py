"""Heat maps from attention: how much of each patch arrives in the class token."""

from __future__ import annotations

import torch
from torch import Tensor

from effort_finetune.model.subject import Subject


def attention_rollout(subject: Subject) -> Tensor:
    """Attention multiplied through the blocks, half of each block being what passes by it.

    Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3; heads are averaged. It
    does not know the class.

    Returns:
        ``float32[B, side, side]``, not negative.
    """
    flow: Tensor | None = None
    for weights in subject.traced.attention:
        mean = weights.mean(dim=1)
        mixed = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        flow = mixed if flow is None else mixed @ flow
    assert flow is not None, "a tower has blocks"
    return subject.grid(flow[:, 0, 1:])


def gradient_rollout(subject: Subject) -> Tensor:
    """Attention weighted by its gradient, where that raises the score, summed through the blocks.

    Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", equations 5 and 6.

    Returns:
        ``float32[B, side, side]``, not negative.
    """
    passed = subject.traced
    tokens = passed.attention[0].shape[-1]
    relevance = torch.eye(tokens, device=subject.images.device).expand(len(subject.images), -1, -1)
    for weights, gradient in zip(passed.attention, passed.attention_gradient, strict=True):
        relevance = relevance + (weights * gradient).relu().mean(dim=1) @ relevance
    return subject.grid(relevance[:, 0, 1:])
