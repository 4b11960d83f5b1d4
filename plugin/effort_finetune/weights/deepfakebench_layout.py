"""Writes a model in DeepfakeBench's own layout: ``backbone.*`` and ``head.*``, main part plus residual."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import atomic_write
from effort_finetune.core.progress import track
from effort_finetune.svd import decompose as svd
from effort_finetune.weights.checkpoint import Checkpoint
from effort_finetune.weights.layouts import LOSS_LEAF, RESIDUAL_LEAVES
from effort_finetune.weights.vision_config import DEFAULTS, Said, stating

_ATTENTION = re.compile(r"backbone\.encoder\.layers\.\d+\.self_attn\.(?:q|k|v|out)_proj")
# Upstream's detector is written for ViT-L/14: width 1024, and r = 1023 singular values in the main part.
_UPSTREAM_WIDTH, _UPSTREAM_RANK = 1024, 1


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and what its user has to know.

    Attributes:
        paths: Files written.
        notes: One line each.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def export_deepfakebench(checkpoint: Checkpoint, path: Path | str, *, effort_fork: bool = False) -> Exported:
    """Writes a ``.pth`` that DeepfakeBench's own ``test.py`` loads with ``strict=True``.

    The file has upstream's structure whatever was decomposed here: every attention projection as main plus
    residual (one that is still dense is split, which changes nothing), everything else dense.

    Args:
        checkpoint: The model.
        path: File to write.
        effort_fork: Write for the Effort authors' fork instead, whose detector also wants the singular
            triplets of every main part (``S_r [n-k], U_r [n, n-k], V_r [n-k, m]``): three times the file.
    """
    tensors: dict[str, Tensor] = {}
    state = checkpoint.tensors
    ranks = {
        rank
        for module, rank in checkpoint.residual_ranks.items()
        if _ATTENTION.fullmatch(f"backbone.{module}")
    }
    rank = max(ranks, default=_UPSTREAM_RANK)
    for key, value in forward_tensors(state).items():
        module, _, leaf = key.rpartition(".")
        attention = _ATTENTION.fullmatch(module) is not None
        if leaf == "weight_main" and not attention:
            tensors[f"{module}.weight"] = effective_weight(state, module)
        elif leaf in RESIDUAL_LEAVES and not attention:
            continue
        elif leaf == "weight" and attention:
            parts = svd.split(value.float(), rank)
            tensors[f"{module}.weight_main"] = parts.main
            tensors |= {f"{module}.{name}_residual": getattr(parts, name) for name in "SUV"}
        else:
            tensors[key] = value
    if effort_fork:
        tensors |= _main_triplets(tensors)
    own = {key: plain(value) for key, value in tensors.items()}
    width = own["head.weight"].shape[1]
    notes = []
    if width != _UPSTREAM_WIDTH or ranks - {_UPSTREAM_RANK}:
        notes.append(
            f"upstream's detector is written for width {_UPSTREAM_WIDTH} and residual rank {_UPSTREAM_RANK}, "
            f"and does not accept this model's width {width} and rank {rank} as it is"
        )
    if checkpoint.hidden_act != DEFAULTS["hidden_act"]:
        notes.append(
            f"this model computes with {checkpoint.hidden_act}; upstream's detector takes the activation of "
            "the CLIP folder it builds its tower from: give it one with the same"
        )
    said = stating(own, Said(checkpoint.known_config, checkpoint.statement))
    return Exported((atomic_write(path, lambda temporary: _torch_save(said, temporary)),), tuple(notes))


def _main_triplets(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the leading singular triplets of every main part, whose rank is its size less k."""
    triplets: dict[str, Tensor] = {}
    mains = [key.removesuffix(".weight_main") for key in tensors if key.endswith(".weight_main")]
    for module in track(mains, desc="singular values of main", unit="matrix"):
        main = tensors[f"{module}.weight_main"].double()
        keep = min(main.shape) - tensors[f"{module}.S_residual"].shape[0]
        u, s, v = torch.linalg.svd(main, full_matrices=False)
        triplets |= {f"{module}.S_r": s[:keep], f"{module}.U_r": u[:, :keep], f"{module}.V_r": v[:keep]}
    return triplets


def effective_weight(tensors: Mapping[str, Tensor], module: str) -> Tensor:
    """Returns a module's dense weight: ``weight``, or ``weight_main + U diag(S) V``.

    Summed in float64 and rounded once, to float32 (float64 stays): in a low precision the sum
    would swallow the residual.

    Args:
        tensors: Canonical state dict.
        module: Canonical module name, e.g. ``backbone.encoder.layers.0.self_attn.q_proj``.

    Returns:
        ``[n, m]``, a new tensor when the module is decomposed.
    """
    if f"{module}.weight" in tensors:
        return tensors[f"{module}.weight"]
    main = tensors[f"{module}.weight_main"]
    s, u, v = (tensors[f"{module}.{leaf}"].double() for leaf in RESIDUAL_LEAVES)
    dense = torch.addmm(main.double(), u * s, v)
    return dense if main.dtype == torch.float64 else dense.float()


def forward_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what the forward path needs of a state dict: tower and head, no buffer of a loss.

    Raises:
        UserError: If there is no head.
    """
    if "head.weight" not in state:
        raise UserError("export", got="weights without a head", expected="a fine-tuned or Effort checkpoint")
    return {
        key: value
        for key, value in state.items()
        if key.startswith(("backbone.", "head.")) and not key.endswith(f".{LOSS_LEAF}")
    }


def plain(tensor: Tensor) -> Tensor:
    """Returns the tensor as files hold it: on the CPU, float32, contiguous."""
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _torch_save(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Through a stream the archive's inner folder has a fixed name; through a path, the temporary one.
    with path.open("wb") as stream:
        torch.save(tensors, stream)
