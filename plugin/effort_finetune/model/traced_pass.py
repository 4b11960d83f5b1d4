"""One pass through the tower that keeps what a heat map is made of: attention, states, their gradients.

The blocks are computed here from their own layers, since fused attention gives no weights back; merged layers
and factored ones are called alike. The score is the log-odds of fake: the probability's own gradient vanishes
where it is near 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effort_finetune.model.detector import EffortFinetuneDetector

#: Nearer to 0 than this an activation's gate is its slope.
_SMALL = 1e-6


@dataclass(frozen=True)
class TracedPass:
    """What one pass left, without a graph: B pictures, h heads, T tokens, the first of them the class token.

    Attributes:
        log_odds: ``float32[B]``, of fake.
        attention: For each block ``float32[B, h, T, T]``, a row sums to 1.
        attention_gradient: Of the log-odds, the same shapes; none of a conservative pass.
        states: What enters each block, and what leaves the last, ``float32[B, T, d]`` each.
        states_gradient: Of the log-odds, the same shapes.
        normed: What leaves the first norm of each block, ``float32[B, T, d]`` each.
        normed_gradient: Of the log-odds, the same shapes.
        image_gradient: Of the log-odds, ``float32[B, 3, H, W]``.
    """

    log_odds: Tensor
    attention: tuple[Tensor, ...]
    attention_gradient: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    states_gradient: tuple[Tensor, ...]
    normed: tuple[Tensor, ...]
    normed_gradient: tuple[Tensor, ...]
    image_gradient: Tensor


def traced_pass(
    detector: EffortFinetuneDetector, images: Tensor, *, conservative: bool = False
) -> TracedPass:
    """Scores pictures and keeps the way.

    Args:
        detector: In evaluation mode.
        images: ``float32[B, 3, H, W]``, normalised.
        conservative: Hold attention weights, deviations of the norms and gates of the activations constant in
            the backward pass, so that gradient times input shares out the log-odds among the tokens (Ali et
            al. 2022, "XAI for Transformers: Better Explanations through Conservative Propagation").
    """
    tower: Any = detector.backbone
    with torch.inference_mode(False), torch.enable_grad():
        image = images.detach().clone().requires_grad_(True)
        state = tower.pre_layrnorm(tower.embeddings(image))
        states, normed, attention = [state], [], []
        for block in tower.encoder.layers:
            state, weights, inside = _block(block, state, conservative)
            states.append(state)
            normed.append(inside)
            attention.append(weights)
        pooled = _norm(tower.post_layernorm, state[:, 0], conservative)
        logits = detector.classifier(pooled)
        log_odds = logits[:, 1] - logits[:, 0]
        wanted = [image, *normed, *states, *(() if conservative else attention)]
        of_image, *rest = torch.autograd.grad(log_odds.sum(), wanted, materialize_grads=True)
    blocks = len(normed)
    return TracedPass(
        log_odds.detach(),
        attention=_freed(attention),
        attention_gradient=tuple(rest[2 * blocks + 1 :]),
        states=_freed(states),
        states_gradient=tuple(rest[blocks : 2 * blocks + 1]),
        normed=_freed(normed),
        normed_gradient=tuple(rest[:blocks]),
        image_gradient=of_image,
    )


def _freed(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach() for tensor in tensors)


def _block(block: Any, state: Tensor, conservative: bool) -> tuple[Tensor, Tensor, Tensor]:
    """A block of CLIP: attention and MLP, each after its norm and added to what came in."""
    part = block.self_attn
    normed = _norm(block.layer_norm1, state, conservative)
    q, k, v = (
        projection(normed).unflatten(-1, (part.num_heads, -1)).transpose(1, 2)
        for projection in (part.q_proj, part.k_proj, part.v_proj)
    )
    weights = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1)
    if conservative:
        weights = weights.detach()
    state = state + part.out_proj((weights @ v).transpose(1, 2).flatten(2))
    inside = block.mlp.fc1(_norm(block.layer_norm2, state, conservative))
    active = block.mlp.activation_fn(inside)
    if conservative:
        gate = torch.where(inside.abs() > _SMALL, active / inside, 0.5)  # 0.5: the slope of every gate at 0
        active = inside * gate.detach()
    return state + block.mlp.fc2(active), weights, normed


def _norm(norm: nn.LayerNorm, x: Tensor, conservative: bool) -> Tensor:
    if not conservative:
        return norm(x)
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + norm.eps).rsqrt().detach()
    return centred * scale * norm.weight + norm.bias
