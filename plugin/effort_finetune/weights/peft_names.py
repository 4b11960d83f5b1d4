"""LoRA and DoRA in a state dict: PEFT's names, and the same model without them.

While a run trains them, a module's own tensors stand under ``<module>.base_layer.*``, PEFT's beside them in
``<module>.lora_*``, with ``lora_scale``. What a run selects and publishes is merged into ``weight_main``, so
that it has DeepfakeBench's names and loads strictly wherever any other model of ours does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from effort_finetune.weights.layouts import RESIDUAL_LEAVES
from effort_finetune.weights.vision_config import of_state, stating

#: PEFT calls an adapter by a name; ours have this one.
ADAPTER = "default"
SCALE = "lora_scale"
_BASE, _LORA = ".base_layer.", ".lora_"
_A, _B, _MAGNITUDE = (f"{leaf}.{ADAPTER}.weight" for leaf in ("lora_A", "lora_B", "lora_magnitude_vector"))


def is_adapted(state: Mapping[str, Tensor]) -> bool:
    """Tells whether a state dict has tensors of LoRA or DoRA."""
    return any(_LORA in key for key in state)


def merged(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Returns a state dict under DeepfakeBench's names, each adapter merged into its ``weight_main``.

    With ``W = main + U diag(S) V`` and ``D = scale B A``, LoRA's weight is ``W + D`` (arXiv 2106.09685),
    DoRA's each row of it brought to its learned length (arXiv 2402.09353). Summed in float64, rounded once.

    Args:
        state: Of a detector; returned as it is where it has no adapter.
    """
    if not is_adapted(state):
        return state
    plain = dict(without_adapters(state))
    for key in state:
        if key.endswith(f".{_A}"):
            module = key.removesuffix(f".{_A}")
            main = plain[f"{module}.weight_main"]
            plain[f"{module}.weight_main"] = _merged_main(state, module).to(main.dtype)
    return stating(plain, of_state(state, "state dict"))


def without_adapters(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Returns a state dict under DeepfakeBench's names, its adapters left out."""
    if not is_adapted(state):
        return state
    kept = {key.replace(_BASE, "."): value for key, value in state.items() if _LORA not in key}
    return stating(kept, of_state(state, "state dict"))


def _merged_main(state: Mapping[str, Tensor], module: str) -> Tensor:
    main, s, u, v = (
        state[f"{module}{_BASE}{leaf}"].detach().double() for leaf in ("weight_main", *RESIDUAL_LEAVES)
    )
    a, b = (state[f"{module}.{leaf}"].detach().double() for leaf in (_A, _B))
    change = state[f"{module}.{SCALE}"].double() * (b @ a)
    magnitude = state.get(f"{module}.{_MAGNITUDE}")
    if magnitude is None:
        return main + change
    residual = (u * s) @ v
    whole = main + residual + change
    lengths = torch.linalg.vector_norm(whole, dim=1)
    return (magnitude.detach().double() / lengths)[:, None] * whole - residual
