"""Learning-rate schedules. One step is one epoch, as ``lr_T_max`` and ``lr_step`` count them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, StepLR

from effort_finetune.core.errors import UserError

if TYPE_CHECKING:
    from effort_finetune.config import Settings


def build_scheduler(optimizer: Optimizer, settings: Settings) -> LRScheduler | None:
    """Builds the schedule named by ``lr_scheduler``; ``None`` keeps the rate constant.

    ``cosine`` and ``linear`` fall from the optimiser's rate to ``lr_eta_min`` over ``lr_T_max``
    epochs; after that ``linear`` stays there and ``cosine`` rises again (see
    :func:`schedule_warning`). ``step`` multiplies by ``lr_gamma`` every ``lr_step`` epochs.

    Raises:
        UserError: If the kind is unknown or ``lr_eta_min`` would make the rate rise.
    """
    kind = settings.lr_scheduler
    if kind is None:
        return None
    if kind == "step":
        return StepLR(optimizer, step_size=settings.lr_step, gamma=settings.lr_gamma)
    if kind not in ("cosine", "linear"):
        raise UserError("lr_scheduler", got=repr(kind), expected="null, cosine, step or linear")
    if settings.lr_eta_min >= settings.optimizer.lr:
        raise UserError(
            "lr_eta_min",
            got=settings.lr_eta_min,
            expected=f"less than optimizer.lr, which is {settings.optimizer.lr}",
            next_step="lower lr_eta_min or raise optimizer.lr",
        )
    if kind == "cosine":
        return CosineAnnealingLR(optimizer, T_max=settings.lr_T_max, eta_min=settings.lr_eta_min)
    return LinearLR(
        optimizer,
        start_factor=1.0,
        end_factor=settings.lr_eta_min / settings.optimizer.lr,
        total_iters=settings.lr_T_max,
    )


def advance(scheduler: LRScheduler | None) -> None:
    """Steps a schedule at the end of an epoch; nothing happens without one."""
    if scheduler is None:
        return
    with warnings.catch_warnings():
        # torch looks for a step of the optimiser in this process; a run resumed between training and
        # validation made it in the process before.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        scheduler.step()


def schedule_warning(settings: Settings) -> str | None:
    """Returns what may surprise about the schedule of these settings, if anything."""
    # Epoch lr_T_max is the first to run at the minimum; only those after it see the rate rise.
    if settings.lr_scheduler == "cosine" and settings.nEpochs > settings.lr_T_max + 1:
        return (
            f"the cosine schedule reaches its minimum after lr_T_max {settings.lr_T_max} epochs and rises "
            f"again until epoch {settings.nEpochs}; set lr_T_max to nEpochs for a single fall"
        )
    return None
