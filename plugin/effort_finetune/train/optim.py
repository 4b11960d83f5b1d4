"""The optimiser, from settings, over what is trainable and nothing else, in groups that share a rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from effort_finetune.core.errors import UserError
from effort_finetune.model.inject import block_of
from effort_finetune.model.trainable import group_of
from effort_finetune.train.sharpness import SAM

if TYPE_CHECKING:
    from effort_finetune.config import Settings


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters that learn, in the model's order.

    Raises:
        UserError: If nothing is trainable.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise UserError(
            "nothing is trainable",
            expected="at least one parameter that learns",
            next_step="set train_svd_residuals or train_classification_head true, or name layers in unfreeze",
        )
    return parameters


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Builds the optimiser over the trainable parameters.

    Weight decay acts on every trainable parameter, singular vectors and biases included, as it
    does in DeepfakeBench's ``choose_optimizer``; that keeps runs comparable with upstream's.

    Raises:
        UserError: If nothing is trainable or the optimiser's type is unknown.
    """
    groups = rate_groups(model, settings)
    o = settings.optimizer
    if o.type == "sgd":
        return torch.optim.SGD(groups, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)
    if o.type == "sam":
        return SAM(groups, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay, rho=o.rho)
    if o.type in ("adam", "adamw"):
        factory = torch.optim.Adam if o.type == "adam" else torch.optim.AdamW
        return factory(
            groups,
            lr=o.lr,
            betas=(o.beta1, o.beta2),
            eps=o.eps,
            weight_decay=o.weight_decay,
            amsgrad=o.amsgrad,
        )
    raise UserError("optimizer.type", got=repr(o.type), expected="adam, adamw, sgd or sam")


def rate_groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Returns the trainable parameters in groups of one rate each, in the order in which the model has them.

    The rate is ``optimizer.lr``, or the one of the head, of the residuals or of all else; in block ``i`` of
    ``n`` it is multiplied by ``layer_decay ** (n - i)``, in what lies before the blocks (patches, positions,
    first norm) by ``layer_decay ** (n + 1)``; head and last norm have the full rate (Clark et al. 2020).
    """
    trainable_parameters(model)
    o = settings.optimizer
    rates = {"head": o.lr_head, "residual": o.lr_residual}
    blocks = 1 + max(
        (b for name, _ in model.named_parameters() if (b := block_of(name)) is not None), default=-1
    )
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = group_of(name) if group_of(name) in rates else "unfrozen"
        rate = rates.get(kind, o.lr_unfrozen) or o.lr
        rate *= o.layer_decay ** _depth(name, blocks)
        # Without rates of their own all weights are one group, as in an optimiser over a plain list.
        kind = kind if rates["head"] or rates["residual"] or o.lr_unfrozen else "all"
        group = groups.setdefault((kind, rate), {"params": [], "lr": rate, "name": kind})
        group["params"].append(parameter)
    return list(groups.values())


def _depth(name: str, blocks: int) -> int:
    """Returns how many steps of ``layer_decay`` a parameter lies below the head."""
    block = block_of(name)
    if block is not None:
        return blocks - block
    return blocks + 1 if "embeddings." in name or "pre_layrnorm." in name else 0


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Returns the rate of the first parameter group."""
    return float(optimizer.param_groups[0]["lr"])


def highest_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Returns the highest present rate of each kind of weights, by name."""
    found: dict[str, float] = {}
    for group in learning_rates(optimizer):
        name = group["name"] or "all"
        found[name] = max(found.get(name, 0.0), group["lr"])
    return found


def in_words(rates: Mapping[str, float]) -> str:
    """Returns rates for a log: one number, or one a kind of weights where they have their own."""
    if len(rates) == 1:
        return f"{next(iter(rates.values())):g}"
    return ", ".join(f"{name} {rate:g}" for name, rate in rates.items())


def learning_rates(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Returns each group's name, trained values and present rate; a host's groups have no names."""
    return [
        {
            "name": group.get("name"),
            "parameters": sum(parameter.numel() for parameter in group["params"]),
            "lr": float(group["lr"]),
        }
        for group in optimizer.param_groups
    ]
