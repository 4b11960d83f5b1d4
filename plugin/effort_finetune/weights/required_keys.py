"""What a canonical state dict has to hold: every key of the forward path, factors that fit, numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from effort_finetune.weights.layouts import EMBEDDINGS, LINEARS, RESIDUAL_LEAVES

CLASSES = 2


def forward_keys(tensors: Mapping[str, Tensor], blocks: int) -> list[str]:
    """Returns the canonical keys of everything on the forward path, judging by what is there.

    Args:
        tensors: Canonical state dict; a module with any decomposed leaf has to have all of them, and a file
            with a decomposed module or half a head a whole head.
        blocks: Number of blocks.
    """
    keys = [f"backbone.embeddings.{key}" for key in EMBEDDINGS]
    norms = ["backbone.pre_layrnorm", "backbone.post_layernorm"]
    headed = "head.weight" in tensors or "head.bias" in tensors
    for prefix in (f"backbone.encoder.layers.{block}" for block in range(blocks)):
        norms += [f"{prefix}.layer_norm1", f"{prefix}.layer_norm2"]
        for module in (f"{prefix}.{linear}" for linear in LINEARS):
            split = any(f"{module}.{leaf}" in tensors for leaf in ("weight_main", *RESIDUAL_LEAVES))
            headed = headed or split
            leaves = ("weight_main", *RESIDUAL_LEAVES) if split else ("weight",)
            keys += [f"{module}.{leaf}" for leaf in (*leaves, "bias")]
    keys += [f"{norm}.{leaf}" for norm in norms for leaf in ("weight", "bias")]
    return [*keys, *(("head.weight", "head.bias") if headed else ())]


def residual_ranks(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns the name of each decomposed module inside the tower with its residual rank.

    Any factor tells the rank, so that one that is missing is missed by its own name.
    """
    ranks: dict[str, int] = {}
    for key in tensors:
        module, _, leaf = key.rpartition(".")
        name = module.removeprefix("backbone.")
        if leaf not in ("weight_main", *RESIDUAL_LEAVES) or name in ranks:
            continue
        for factor, axis in zip(RESIDUAL_LEAVES, (0, 1, 0), strict=True):
            tensor = tensors.get(f"{module}.{factor}")
            if tensor is not None and tensor.ndim == (1 if factor == "S_residual" else 2):
                ranks[name] = tensor.shape[axis]
                break
    return ranks


def misshapen(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns decomposed modules' factors and heads that do not fit, with ``"<shape> for <expected shape>"``.

    torch would broadcast some of them: one singular value over two columns.
    """
    wrong: dict[str, str] = {}
    for module in (key.removesuffix(".weight_main") for key in tensors if key.endswith(".weight_main")):
        main, s, u, v = (tensors.get(f"{module}.{leaf}") for leaf in ("weight_main", *RESIDUAL_LEAVES))
        if main is None or s is None or u is None or v is None:
            continue  # missing, which is another list's
        if main.ndim != 2 or s.ndim != 1 or not 1 <= len(s) <= min(main.shape):
            shape = "x".join(map(str, main.shape))
            wrong[f"{module}.S_residual"] = f"rank {s.numel()} for a {shape} weight"
            continue
        expected = {"U_residual": (main.shape[0], len(s)), "V_residual": (len(s), main.shape[1])}
        wrong |= {
            f"{module}.{leaf}": f"{list(tensor.shape)} for {list(expected[leaf])}"
            for leaf, tensor in (("U_residual", u), ("V_residual", v))
            if tuple(tensor.shape) != expected[leaf]
        }
    patches, head = tensors.get("backbone.embeddings.patch_embedding.weight"), tensors.get("head.weight")
    if patches is not None and head is not None and tuple(head.shape) != (CLASSES, patches.shape[0]):
        wrong["head.weight"] = f"{list(head.shape)} for {[CLASSES, patches.shape[0]]}"
    return wrong


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity."""
    # The sum is one pass without a temporary; only where it overflows are the values looked at one by one.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
