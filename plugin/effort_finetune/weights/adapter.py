"""Adapter files: residuals, head and whatever else was trained, over a base named by its content.

**Which base.** Fine-tuning starts from an Effort checkpoint or from plain CLIP, and an adapter can stand on
either; what decides is each targeted module of the base:

* the base has ``weight_main``: it is taken as it is, bit for bit;
* the base has a dense ``weight``: ``main = W - U0 diag(S0) V0`` is computed again. The subspace of the k
  smallest singular values is a function of W alone as long as those values stand apart from the next one, and
  W is checked by its hash, so nothing needs to be stored: this keeps a k = 1 adapter of ViT-L/14 under 1 MB
  (storing the triplets would double it). Where the gap is too small for another machine to find the same
  subspace, the triplets are stored beside the residual (``U_base``, ``S_base``, ``V_base``).

**Identity.** Two SHA-256 over float32 values, not over a file, so that a base in another layout is still the
same base: one over the targeted weights, one over every other tensor that the adapter does not bring itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effort_finetune.core.errors import UserError
from effort_finetune.core.progress import track
from effort_finetune.core.version import __version__
from effort_finetune.svd import decompose as svd
from effort_finetune.svd.cache import cached_split
from effort_finetune.weights.adapter_header import METADATA_KEY, OWN_LEAVES, AdapterInfo, identity
from effort_finetune.weights.checkpoint import Checkpoint, abbreviate
from effort_finetune.weights.safe_io import write_safetensors
from effort_finetune.weights.statement import Statement, checked
from effort_finetune.weights.vision_config import of_state

LAYOUT = "adapter"
_BASE_LEAVES = ("S_base", "U_base", "V_base")
# Rounding of main to float32, a few units in the last place of its largest entry.
_SAME_MAIN = 8 * torch.finfo(torch.float32).eps
# Smallest gap (relative to ||W||_F) that fixes the residual's subspace to some 1e-10 in float64.
_GAP = 1e-6


def save_adapter(
    path: Path | str,
    state: Mapping[str, Tensor],
    base: Checkpoint,
    *,
    base_name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    settings_digest: str | None = None,
    vision_config: Mapping[str, Any] | None = None,
    statement: Statement | None = None,
) -> Path:
    """Writes what a fine-tuned model has beyond its base, as safetensors, atomically.

    Args:
        path: File to write, ``*.safetensors``.
        state: Canonical state dict of the model.
        base: What it was fine-tuned from: an Effort checkpoint or plain CLIP, in any layout.
        base_name: How to find the base again, a path or hub id; the base's path when left out.
        settings: The run's settings, complete.
        settings_digest: Their digest.
        vision_config: What is known of the model's tower under the keys of ``CLIPVisionConfig``; when left
            out, what the state dict itself says (the detector's does), else the base.
        statement: How the model is to be used; when left out, likewise.

    Raises:
        UserError: If the base is not what the state was fine-tuned from, or main weights were trained.
    """
    if Path(path).exists() and Path(path).samefile(base.path):
        raise UserError("adapter", got=f"{path}, which is the base itself", expected="another file")
    base.require_complete()
    targets = [key.removesuffix(".weight_main") for key in state if key.endswith(".weight_main")]
    if not targets:
        raise UserError("adapter", got="a state dict without residuals", expected="a decomposed model")
    tensors = {
        key: state[key] for key in state if key.startswith("head.") or key.rpartition(".")[2] in OWN_LEAVES
    }
    tensors.update(_triplets_to_store(targets, state, base))
    tensors.update(_trained_beside(targets, state, base))
    said = _statement(statement or of_state(state, "state dict").statement, base, settings)
    info = AdapterInfo(
        base={
            "name": base_name or str(base.path),
            "layout": base.layout,
            "file_sha256": base.sha256,
            **identity(base, targets, tensors),
        },
        targets=tuple(target.removeprefix("backbone.") for target in targets),
        rank=state[f"{targets[0]}.S_residual"].shape[0],
        preprocessing=said.to_dict(),
        settings=settings,
        settings_digest=settings_digest,
        code_version=__version__,
        vision_config={**base.known_config, **(vision_config or of_state(state, "state dict").config)},
    )
    header = {"format": "pt", METADATA_KEY: json.dumps(info.__dict__, allow_nan=False)}
    return write_safetensors(path, tensors, header)


def apply(
    adapter: Checkpoint, info: AdapterInfo, base: Checkpoint, *, allow_base_mismatch: bool = False
) -> Checkpoint:
    """Puts an adapter on its base.

    Args:
        adapter: The adapter's own tensors.
        info: Its header.
        base: The base, read from anywhere, in any layout.
        allow_base_mismatch: Go on with another base; the result carries a note that says so.

    Returns:
        A complete checkpoint, as if the fine-tuned model had been saved whole.

    Raises:
        UserError: If the base is not the adapter's.
    """
    base.require_complete()
    targets = [f"backbone.{name}" for name in info.targets]
    notes = _check_base(adapter, info, base, targets, allow_base_mismatch)
    tensors = {
        key: tensor
        for key, tensor in base.tensors.items()
        if key.startswith("backbone.") and not _belongs(key, targets, ("weight", *OWN_LEAVES))
    }
    tensors.update({k: t for k, t in adapter.tensors.items() if k.rpartition(".")[2] not in _BASE_LEAVES})
    derived = {}
    for target in targets:
        if f"{target}.weight_main" not in tensors:
            tensors[f"{target}.weight_main"] = _main_from_dense(target, base, adapter.tensors)
            derived[f"{target}.weight_main"] = "the base's dense weight less its smallest triplets"
    return replace(
        adapter,
        layout=LAYOUT,
        tensors=tensors,
        derived=derived,
        statement=checked(info.preprocessing, f"adapter {adapter.path}"),
        stated={**base.stated, **(info.vision_config or {})},
        notes=(*adapter.notes, *notes),
    )


def _check_base(
    adapter: Checkpoint, info: AdapterInfo, base: Checkpoint, targets: list[str], allowed: bool
) -> list[str]:
    lacking = [
        t for t in targets if f"{t}.weight_main" not in base.tensors and f"{t}.weight" not in base.tensors
    ]
    if lacking:
        raise UserError(
            f"adapter {adapter.path}",
            got=f"base {base.path} without {abbreviate(lacking)}",
            expected="its own base",
        )
    found = identity(base, targets, adapter.tensors)
    wrong = [name.split("_")[0] for name, digest in found.items() if digest != info.base[name]]
    if not wrong:
        return []
    what = (
        f"base {base.path} differs from the adapter's base {info.base['name']} "
        f"in its {' and '.join(wrong)} weights"
    )
    if allowed:
        return [f"{what}; used all the same, as --allow_base_mismatch asks"]
    raise UserError(
        f"adapter {adapter.path}",
        got=what,
        expected=f"the weights of the file with SHA-256 {info.base['file_sha256']}",
        next_step="name the right base with --base, or pass --allow_base_mismatch",
    )


def _triplets_to_store(
    targets: list[str], state: Mapping[str, Tensor], base: Checkpoint
) -> dict[str, Tensor]:
    """Checks that the state's main weights are the base's; returns the triplets that W does not determine."""
    stored: dict[str, Tensor] = {}
    foreign = []
    for target in track(targets, desc="comparing with the base", unit="matrix"):
        main = state[f"{target}.weight_main"].detach().cpu()
        if f"{target}.weight_main" in base.tensors:
            same = torch.equal(main, base.tensors[f"{target}.weight_main"].to(main.dtype))
        else:
            dense = base.tensors[f"{target}.weight"]
            triplets, apart = _triplets_and_gap(dense, state[f"{target}.S_residual"].shape[0])
            again = svd.assemble(dense, triplets).main
            same = bool((again - main).abs().max() <= _SAME_MAIN * dense.abs().max())
            if not apart:
                parts = (triplets.S, triplets.U, triplets.V)
                names = (f"{target}.{leaf}" for leaf in _BASE_LEAVES)
                stored.update(zip(names, (part.to(dense.dtype) for part in parts), strict=True))
        if not same:
            foreign.append(target)
    if foreign:
        raise UserError(
            "adapter",
            got=f"main weights in {len(foreign)} of {len(targets)} modules that are not from {base.path}: "
            f"{abbreviate(foreign)}",
            expected="the weights this model was fine-tuned from, with frozen main parts",
            next_step="name the right --base, or export to deepfakebench, which needs none",
        )
    return stored


def _triplets_and_gap(dense: Tensor, rank: int) -> tuple[svd.Triplets, bool]:
    """Returns the ``rank`` smallest triplets, and whether their values have a gap to the next one."""
    if rank == min(dense.shape):
        return svd.smallest_triplets(dense, rank), True
    found = svd.smallest_triplets(dense, rank + 1)
    apart = bool(found.S[0] - found.S[1] > _GAP * torch.linalg.norm(dense.double()))
    own = svd.Triplets(U=found.U[:, -rank:], S=found.S[-rank:], V=found.V[-rank:], method=found.method)
    return own, apart


def _main_from_dense(target: str, base: Checkpoint, stored: Mapping[str, Tensor]) -> Tensor:
    dense = base.tensors[f"{target}.weight"]
    if f"{target}.S_base" in stored:
        s, u, v = (stored[f"{target}.{leaf}"] for leaf in _BASE_LEAVES)
        return svd.assemble(dense, svd.Triplets(U=u, S=s, V=v, method="full")).main
    return cached_split(dense, stored[f"{target}.S_residual"].shape[0]).main


def _trained_beside(targets: list[str], state: Mapping[str, Tensor], base: Checkpoint) -> dict[str, Tensor]:
    """Returns tensors outside residuals and head that are not the base's: what `unfreeze` trained."""
    changed = {}
    for key, tensor in state.items():
        if not key.startswith("backbone.") or _belongs(key, targets, ("weight_main", *OWN_LEAVES)):
            continue
        if key not in base.tensors or tensor.shape != base.tensors[key].shape:
            raise UserError(
                "adapter", got=f"{key}, which {base.path} has not in this shape", expected="its base"
            )
        if not torch.equal(tensor.detach().cpu().float(), base.tensors[key].float()):
            changed[key] = tensor
    return changed


def _belongs(key: str, targets: Iterable[str], leaves: tuple[str, ...]) -> bool:
    module, _, leaf = key.rpartition(".")
    return leaf in leaves and module in targets


def _statement(own: Statement, base: Checkpoint, settings: Mapping[str, Any] | None) -> Statement:
    """The model's own statement; what it leaves out, from the run's settings and the base's tower."""
    keys = ("mean", "std", "interpolation")
    of_run = {key: settings[key] for key in keys if key in settings} if settings else {}
    given = {"resolution": base.resolution, "interpolation": "bicubic", **of_run}
    return own.over(checked(given, "settings"))
