"""From settings to an optimiser and a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from config.errors import SettingError
from torch import nn
from torch.optim import lr_scheduler

ADAM = {"lr", "beta1", "beta2", "eps", "weight_decay", "amsgrad"}
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], set[str]]] = {
    "adam": (torch.optim.Adam, ADAM),
    "adamw": (torch.optim.AdamW, ADAM),
    "sgd": (torch.optim.SGD, {"lr", "momentum", "weight_decay"}),
}
SCHEDULES = ("cosine", "step", "linear")


def choose_optimizer(model: nn.Module, config: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Build the optimiser over the parameters that require gradients.

    Args:
        model: The model.
        config: ``optimizer.type`` and its arguments, under ``optimizer.<type>`` or beside ``type``; those
            beside ``type`` win, so that ``--optimizer.lr`` reaches whichever type is chosen.

    Raises:
        SettingError: Unknown type, no learning rate, or nothing to train.
    """
    settings = config["optimizer"]
    name = settings.get("type")
    if name not in OPTIMIZERS:
        raise SettingError(f"optimizer.type is '{name}', expected one of: {', '.join(OPTIMIZERS)}")
    kind, known = OPTIMIZERS[name]
    beside = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    options = {key: value for key, value in {**settings.get(name, {}), **beside}.items() if key in known}
    if "lr" not in options:
        raise SettingError(f"optimizer.{name}.lr is not set")
    if "beta1" in options or "beta2" in options:
        options["betas"] = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise SettingError("the model has no parameter that requires gradients; nothing can be trained")
    return kind(parameters, **options)


def choose_scheduler(
    config: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> lr_scheduler.LRScheduler | None:
    """Build the schedule, to be stepped once an epoch; None when ``lr_scheduler`` is null.

    Args:
        config: ``lr_scheduler`` and its arguments: ``lr_T_max`` [epochs] and ``lr_eta_min`` (cosine),
            ``lr_step`` [epochs] and ``lr_gamma`` (step), ``nEpochs`` (linear, from the full rate to
            ``lr_eta_min``).
        optimizer: The optimiser to steer.

    Raises:
        SettingError: Unknown schedule.
    """
    name = config.get("lr_scheduler")
    if name is None:
        return None
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=config["lr_T_max"], eta_min=config.get("lr_eta_min", 0.0)
        )
    if name == "step":
        return lr_scheduler.StepLR(optimizer, step_size=config["lr_step"], gamma=config["lr_gamma"])
    if name == "linear":
        end = config.get("lr_eta_min", 0.0) / max(group["lr"] for group in optimizer.param_groups)
        return lr_scheduler.LinearLR(optimizer, 1.0, max(0.0, end), total_iters=config["nEpochs"])
    raise SettingError(f"lr_scheduler is '{name}', expected null or one of: {', '.join(SCHEDULES)}")
