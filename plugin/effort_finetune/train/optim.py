"""The optimiser, from settings, over what is trainable and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from effort_finetune.core.errors import UserError

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
    parameters = trainable_parameters(model)
    o = settings.optimizer
    if o.type == "sgd":
        return torch.optim.SGD(parameters, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)
    if o.type in ("adam", "adamw"):
        factory = torch.optim.Adam if o.type == "adam" else torch.optim.AdamW
        return factory(
            parameters,
            lr=o.lr,
            betas=(o.beta1, o.beta2),
            eps=o.eps,
            weight_decay=o.weight_decay,
            amsgrad=o.amsgrad,
        )
    raise UserError("optimizer.type", got=repr(o.type), expected="adam, adamw or sgd")


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Returns the rate of the first parameter group; the groups of a run share one."""
    return float(optimizer.param_groups[0]["lr"])
