"""LoRA and DoRA, the baselines that reviewers ask for: PEFT's own layers around the decomposed ones.

The layer below keeps its names and stays frozen, so that what was trained merges into ``weight_main`` and a
file of it is one like any other; see :mod:`~effort_finetune.weights.peft_names`.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.core.seeding import derive
from effort_finetune.model.inject import block_of, in_range
from effort_finetune.model.layers import SVDResidualLinear, residual_layers
from effort_finetune.weights.peft_names import ADAPTER, SCALE

MODES = ("lora", "dora")


def require_peft(settings: Settings) -> None:
    """Refuses LoRA and DoRA where PEFT is not installed.

    Raises:
        UserError: If it is not.
    """
    if settings.tune_mode in MODES and find_spec("peft") is None:
        raise UserError(
            f"tune_mode {settings.tune_mode}",
            got="no peft here",
            expected="the package",
            next_step="pip install 'effort-finetune[peft]'",
        )


def wrap(tower: nn.Module, settings: Settings) -> None:
    """Puts PEFT's layer around every decomposed layer within ``layer_range``, in place.

    At the start the model computes what it did: LoRA's B is 0. A is drawn from a stream of the run's seed.

    Args:
        tower: A tower with decomposed layers.
        settings: ``tune_mode``, ``lora``, ``layer_range`` and ``manualSeed`` are read.

    Raises:
        UserError: If PEFT is missing, no layer is decomposed, or the rank does not fit.
    """
    require_peft(settings)
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora.layer import Linear

    layers = {
        name: layer
        for name, layer in residual_layers(tower).items()
        if in_range(block_of(name) or 0, settings.layer_range)
    }
    most = min((min(layer.weight_main.shape) for layer in layers.values()), default=0)
    if not 1 <= settings.lora.rank <= most:
        raise UserError(
            "lora.rank",
            got=f"{settings.lora.rank}, of {len(layers)} layers",
            expected=f"1 to {most}" if layers else "targets that match a layer within layer_range",
        )
    config = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=list(layers),
        use_dora=settings.tune_mode == "dora",
    )
    config._register_custom_module(
        {SVDResidualLinear: Linear}
    )  # PEFT's documented way for layers of one's own
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # its sizes, which we do state
        torch.manual_seed(derive(settings.manualSeed, "lora"))
        inject_adapter_in_model(config, tower, adapter_name=ADAPTER)
    scale = settings.lora.alpha / settings.lora.rank
    for layer in _wrapped(tower).values():
        layer.register_buffer(SCALE, torch.tensor(scale))


def unwrap(tower: nn.Module) -> None:
    """Takes PEFT's layers away again, what they learned with them; the layers below are as they were."""
    for name, layer in _wrapped(tower).items():
        parent, _, attribute = name.rpartition(".")
        setattr(tower.get_submodule(parent), attribute, layer.base_layer)


def _wrapped(tower: nn.Module) -> dict[str, Any]:
    """Returns PEFT's layers by name."""
    below = {
        name.removesuffix(".base_layer") for name in residual_layers(tower) if name.endswith(".base_layer")
    }
    return {name: tower.get_submodule(name) for name in below}
