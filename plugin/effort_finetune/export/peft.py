"""Writes a fine-tuned model as a LoRA adapter over plain CLIP, for PEFT.

The change of a weight, ``dW = U diag(S) V - U0 diag(S0) V0``, is of rank 2k and so a LoRA update, exactly:

    B = [U diag(S), -U0 diag(S0)]   [n, 2k]
    A = [V; V0]                     [2k, m]

with ``alpha = r = 2k``, i.e. a scaling of 1. What LoRA trained and merged into ``main`` has a low rank, too,
and is found by an SVD of the change; what DoRA, full fine-tuning and trained biases made has not: refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from effort_finetune.core.errors import UserError
from effort_finetune.core.progress import track
from effort_finetune.core.whole_folder import whole_folder
from effort_finetune.weights.checkpoint import Checkpoint, abbreviate
from effort_finetune.weights.deepfakebench_layout import Exported
from effort_finetune.weights.layouts import LOSS_LEAF, RESIDUAL_LEAVES
from effort_finetune.weights.safe_io import HEAD_FILE, write_safetensors
from effort_finetune.weights.vision_config import of_tower

# How much of W - main may lie outside k triplets, relative to max |W|: upstream rebuilds main in float32 from
# 1023 triplets, whose error is some 1e-6.
_REST = 2e-5
_OVERSAMPLING = 8


def export_peft(
    checkpoint: Checkpoint,
    folder: Path | str,
    base: Checkpoint,
    *,
    base_name: str | None = None,
    tower: str = "vision_model.",
) -> Exported:
    """Writes ``adapter_config.json``, ``adapter_model.safetensors`` and ``head.safetensors``.

    Args:
        checkpoint: The model.
        folder: Folder to write into.
        base: Plain CLIP, in any layout.
        base_name: Path or hub id of the base for PEFT's ``base_model_name_or_path``.
        tower: Prefix of the tower in the model PEFT will wrap: ``"vision_model."`` for ``CLIPModel`` in every
            version of transformers, and for ``CLIPVisionModel`` before 5.6; ``""`` for that from 5.6 on.

    Raises:
        UserError: If PEFT is not installed, the base is not plain CLIP or not the model's, or more than
            residuals and head were trained, which LoRA cannot express.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UserError(
            "export to peft", got="no peft here", next_step="pip install 'effort-finetune[peft]'"
        ) from error
    base.require_complete()
    state = checkpoint.tensors
    targets = [key.removesuffix(".weight_main") for key in state if key.endswith(".weight_main")]
    _check_config(checkpoint, base)
    _check(state, base, targets)
    weights, ranks = {}, {}
    for target in track(targets, desc="LoRA factors", unit="matrix"):
        name = f"{tower}{target.removeprefix('backbone.')}"
        a, b = _lora(state, base, target)
        weights[f"base_model.model.{name}.lora_A.weight"] = a
        weights[f"base_model.model.{name}.lora_B.weight"] = b
        ranks[name] = a.shape[0]
    rank = max(ranks.values())
    other = {name: r for name, r in ranks.items() if r != rank}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(ranks),
        rank_pattern=other,
        alpha_pattern=other,
        lora_dropout=0.0,
        bias="none",
        base_model_name_or_path=base_name or str(base.path),
        inference_mode=True,
    )
    folder = Path(folder)
    head = {key: state[key].float() for key in ("head.weight", "head.bias")}
    wrapped = "CLIPModel" if tower else "CLIPVisionModel"
    with whole_folder(folder) as made:
        config.save_pretrained(str(made))
        written = (
            write_safetensors(made / "adapter_model.safetensors", weights, {"format": "pt"}),
            write_safetensors(made / HEAD_FILE, head, {"format": "pt"}),
            made / "adapter_config.json",
        )
    return Exported(
        tuple(folder / path.name for path in written),
        (f"load with PeftModel.from_pretrained({wrapped}.from_pretrained(<base>), '{folder}')",),
    )


def vision_model_prefix(config: Mapping[str, Any]) -> str:
    """Returns the tower's prefix in the model that transformers makes of a ``config.json``.

    Args:
        config: Its content; empty when there is none, which stands for ``CLIPModel``.
    """
    if config.get("model_type") != "clip_vision_model":
        return "vision_model."
    with torch.device("meta"):
        model = CLIPVisionModel(CLIPVisionConfig(num_hidden_layers=0))
    return "vision_model." if hasattr(model, "vision_model") else ""


def _check_config(checkpoint: Checkpoint, base: Checkpoint) -> None:
    """Refuses a base that computes in another way: its own configuration is what PEFT's user will load."""
    own = checkpoint.known_config
    for key, value in of_tower(base.stated).items():
        if own.get(key, value) != value:
            raise UserError(
                "export to peft",
                got=f"base {base.path} with {key} {value}",
                expected=f"the model's {own[key]}",
                next_step="name the right --base, or export to merged",
            )


def _check(state: Mapping[str, Tensor], base: Checkpoint, targets: list[str]) -> None:
    """Refuses a base that is not plain CLIP, and a model that differs from it by more than LoRA can say."""
    if not targets:
        raise UserError("export to peft", got="a state dict without residuals", expected="a decomposed model")
    dense = [target for target in targets if f"{target}.weight" not in base.tensors]
    if dense:
        raise UserError(
            "export to peft", got=f"base {base.path} without a dense weight in {abbreviate(dense)}",
            expected="plain CLIP", next_step="name it with --base",
        )  # fmt: skip
    changed = []
    for key, tensor in state.items():
        leaf = key.rpartition(".")[2]
        if leaf in ("weight_main", LOSS_LEAF, *RESIDUAL_LEAVES) or not key.startswith("backbone."):
            continue
        under = base.tensors.get(key)
        if under is None or not torch.equal(tensor.detach().cpu().float(), under.float()):
            changed.append(key)
    if changed:
        raise UserError(
            "export to peft",
            got=f"{len(changed)} other tensors that differ from {base.path}: {abbreviate(changed)}",
            expected="the CLIP this model was fine-tuned from, and nothing else trained",
            next_step="name the right --base, or export to merged",
        )


def _lora(state: Mapping[str, Tensor], base: Checkpoint, target: str) -> tuple[Tensor, Tensor]:
    """Returns LoRA's ``A [2k, m]`` and ``B [n, 2k]`` of one module, float32."""
    weight = base.tensors[f"{target}.weight"].double()
    main, s, u, v = (
        state[f"{target}.{leaf}"].detach().cpu().double() for leaf in ("weight_main", *RESIDUAL_LEAVES)
    )
    removed = weight - main
    u0, s0, v0 = _leading_triplets(removed, s.shape[0])
    rest = (removed - (u0 * s0) @ v0).abs().max() / weight.abs().max()
    if not rest <= _REST:
        return _low_rank(main + (u * s) @ v - weight, float(_REST * weight.abs().max()), target, base)
    a = torch.cat([v, v0]).float().contiguous()
    b = torch.cat([u * s, -u0 * s0], dim=1).float().contiguous()
    return a, b


def _low_rank(change: Tensor, tolerance: float, target: str, base: Checkpoint) -> tuple[Tensor, Tensor]:
    """Returns the factors of a change that training made otherwise than by residuals, if it has a low rank.

    Raises:
        UserError: If it has none, as a change by DoRA or full fine-tuning, or from another base.
    """
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    most = min(change.shape) // 4
    # An entry of the rest is at most the first value that is left out.
    rank = max(1, int((s > tolerance).sum()))
    if rank > most:
        raise UserError(
            "export to peft",
            got=f"{target}, which differs from {base.path} by more than {most} directions",
            expected="the CLIP this model was fine-tuned from, by residuals or LoRA",
            next_step="name the right --base, or export to merged, which any change can be",
        )
    return v[:rank].float().contiguous(), (u * s)[:, :rank].float().contiguous()


def _leading_triplets(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the ``rank`` largest singular triplets ``U [n, k], S [k], V [k, m]`` of a float64 matrix."""
    width = min(rank + _OVERSAMPLING, *matrix.shape)
    if 4 * width >= min(matrix.shape):
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :rank], s[:rank], v[:rank]
    # All but k singular values are rounding noise, so a few steps of subspace iteration are exact.
    start = torch.randn(
        matrix.shape[1], width, dtype=matrix.dtype, generator=torch.Generator().manual_seed(0)
    )
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(4):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    u, s, v = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ u)[:, :rank], s[:rank], v[:rank]
