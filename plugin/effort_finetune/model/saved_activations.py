"""What a forward pass keeps for the backward pass: less of it, or elsewhere. The gradients are the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint


def recompute_blocks(tower: Any) -> None:
    """Lets each block of a tower keep its input alone, and run again in the backward pass.

    Chen et al. 2016, arXiv 1604.06174, with torch's checkpoints, which need no other input to have a
    gradient. Nothing changes where no gradient is asked for.

    Args:
        tower: CLIP's vision tower.
    """
    for block in tower.encoder.layers:
        block.forward = _recomputed(block.forward)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def offloaded(model: nn.Module) -> AbstractContextManager[Any]:
    """Within the context, what is kept for the backward pass lies in main memory and comes back for it.

    As torch's ``save_on_cpu``, but weights stay where they are: every linear layer keeps its own, and copying
    these would cost more than the activations.

    Args:
        model: Whose weights stay.
    """
    weights = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}

    def pack(value: Tensor) -> tuple[torch.device, Tensor]:
        if value.device.type == "cpu" or value.untyped_storage().data_ptr() in weights:
            return value.device, value
        return value.device, to_main_memory(value)

    def unpack(packed: tuple[torch.device, Tensor]) -> Tensor:
        device, value = packed
        return value.to(device, non_blocking=True)

    return saved_tensors_hooks(pack, unpack)


def to_main_memory(value: Tensor) -> Tensor:
    """Returns a copy in main memory, page-locked where that makes the way back faster."""
    kept = torch.empty(value.size(), dtype=value.dtype, layout=value.layout, pin_memory=value.is_cuda)
    return kept.copy_(value)
