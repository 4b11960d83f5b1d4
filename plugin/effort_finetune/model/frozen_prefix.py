"""The tower cut at the first block that is trained: what lies before it gives the same in every epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from effort_finetune.model.inject import block_of

_BEFORE_BLOCKS = ("backbone.embeddings.", "backbone.pre_layrnorm.")


def first_trained_block(names: Iterable[str], blocks: int) -> int:
    """Returns the first block with a trained parameter; 0 where the embedding is trained.

    Args:
        names: Trained parameters of a detector.
        blocks: Of its tower; returned where nothing before the last norm is trained.
    """
    first = blocks
    for name in names:
        if name.startswith(_BEFORE_BLOCKS):
            return 0
        if (block := block_of(name)) is not None:
            first = min(first, block)
    return first


def before_block(tower: Any, image: Tensor, block: int) -> Tensor:
    """Returns what enters a block.

    Args:
        tower: CLIP's vision tower.
        image: ``[B, 3, H, W]``.
        block: From 0; the number of blocks stands for the last norm, which sees the class token alone.

    Returns:
        ``[B, tokens, hidden]``, one token before the last norm.
    """
    hidden = _cut(tower.encoder, slice(0, block))(inputs_embeds=tower.pre_layrnorm(tower.embeddings(image)))
    states: Tensor = hidden.last_hidden_state
    return states[:, :1] if block == len(tower.encoder.layers) else states


def from_block(tower: Any, states: Tensor, block: int) -> Tensor:
    """Returns the pooled features ``[B, hidden]`` of what :func:`before_block` returned."""
    hidden = _cut(tower.encoder, slice(block, None))(inputs_embeds=states).last_hidden_state
    pooled: Tensor = tower.post_layernorm(hidden[:, 0])
    return pooled


def _cut(encoder: Any, part: slice) -> Any:
    """Returns an encoder of some of the blocks, which are the same modules and not copies."""
    cut = copy.copy(encoder)
    cut._modules = {**encoder._modules, "layers": encoder.layers[part]}
    return cut
