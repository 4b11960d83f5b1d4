"""Tensors in nested containers: packed for a file, taken apart again, and hashed by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_PACKED_ELEMENTS = 1 << 18  # larger tensors get a record of their own: packing would copy them


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Returns a hash of names, types, shapes and bytes, in the order of the names: of no file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def packed(tree: Any) -> Any:
    """Returns a tree whose small tensors are views of one flat tensor per type.

    A file has a record of some hundred bytes for each storage: a thousand tensors of a rank-1 residual and of
    their moments would cost as much as what they hold.
    """
    small: dict[torch.dtype, list[Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        if tensor.numel() < _PACKED_ELEMENTS:
            small.setdefault(tensor.dtype, []).append(tensor)
        return tensor

    noted = _mapped(tree, note)
    flat = {kind: torch.cat([t.reshape(-1) for t in tensors]) for kind, tensors in small.items()}
    at = dict.fromkeys(flat, 0)

    def view(tensor: Tensor) -> Tensor:
        if tensor.numel() >= _PACKED_ELEMENTS:
            return tensor
        start = at[tensor.dtype]
        at[tensor.dtype] = start + tensor.numel()
        return flat[tensor.dtype][start : start + tensor.numel()].view(tensor.shape)

    return _mapped(noted, view)


def clones(tree: Any) -> Any:
    """Returns a tree whose tensors share no memory: what :func:`packed` made is taken apart."""
    return _mapped(tree, lambda tensor: tensor.clone())


def _mapped(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(value, function) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)([_mapped(value, function) for value in tree])
    return tree
