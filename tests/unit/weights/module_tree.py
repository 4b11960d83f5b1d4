"""A module that knows nothing of the package, made to take a state dict."""

from __future__ import annotations

import torch
from torch import nn


def model_of(state, device="cpu"):
    """A module tree whose state dict has exactly the keys and shapes of ``state``."""
    root = nn.Module()
    for key, value in state.items():
        *path, leaf = key.split(".")
        owner = root
        for name in path:
            if name not in owner._modules:
                owner.add_module(name, nn.Module())
            owner = owner._modules[name]
        owner.register_parameter(leaf, nn.Parameter(torch.zeros_like(value, device=device)))
    return root
