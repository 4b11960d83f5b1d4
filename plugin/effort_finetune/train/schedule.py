"""Learning-rate schedules: a factor of each group's rate, by epochs or by steps.

Each is a closed form of how far the run is, so that a resumed run has the same rates to the bit; they equal
torch's schedulers of these names. ``plateau`` depends on what is measured and is torch's own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from effort_finetune.core.errors import UserError

if TYPE_CHECKING:
    from effort_finetune.config import Settings

#: torch's OneCycleLR: share of the steps that rise, first rate and last rate as shares of the highest.
ONE_CYCLE = (0.3, 1 / 25, 1 / 25 / 1e4)


class Schedule:
    """Moves the rates of an optimiser, each step or each epoch.

    Args:
        scheduler: Of torch; a host's own, or one of :func:`build_schedule`. ``None`` keeps the rates.
        per_step: Whether it moves with each step in place of each epoch.
    """

    def __init__(self, scheduler: LRScheduler | None, *, per_step: bool = False) -> None:
        self.scheduler, self.per_step = scheduler, per_step

    def step_made(self) -> None:
        """Says that the optimiser made a step."""
        if self.per_step:
            _advance(self.scheduler)

    def epoch_done(self, value: float | None = None) -> None:
        """Says that an epoch ended, and what it scored where that is known."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if value is not None:
                self.scheduler.step(value)
        elif not self.per_step:
            _advance(self.scheduler)

    def state_dict(self) -> dict[str, Any] | None:
        """Returns the scheduler's state; ``None`` without one."""
        return None if self.scheduler is None else self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restores :meth:`state_dict`."""
        if self.scheduler is not None and state is not None:
            self.scheduler.load_state_dict(state)


def build_schedule(
    optimizer: Optimizer, settings: Settings, *, steps: int | None, higher_is_better: bool = True
) -> Schedule:
    """Builds the schedule that the settings name.

    ``cosine`` and ``linear`` fall from the rate to the share ``lr_eta_min / optimizer.lr`` of it over
    ``lr_T_max`` epochs; after that ``linear`` stays there and ``cosine`` rises again (see
    :func:`schedule_warning`). ``step`` multiplies by ``lr_gamma`` every ``lr_step`` epochs, ``plateau`` when
    the selection metric was not better for ``lr_patience`` epochs. ``onecycle`` goes over all ``nEpochs``.
    ``lr_warmup`` comes before, and these begin after it.

    Args:
        optimizer: Its groups keep the relation of their rates.
        settings: The ``lr_*`` keys, ``nEpochs`` and ``optimizer.lr`` are read.
        steps: Optimiser steps of an epoch; ``None`` where nobody knows them yet.
        higher_is_better: Of the selection metric, for ``plateau``.

    Raises:
        UserError: If ``lr_eta_min`` would make the rate rise, two settings contradict each other, or the
            rate is to move with steps that nobody knows.
    """
    kind, per_step = settings.lr_scheduler, settings.lr_per == "step" or settings.lr_scheduler == "onecycle"
    check_schedule(settings)
    if kind is None and not settings.lr_warmup:
        return Schedule(None)
    if kind == "plateau":
        return Schedule(
            ReduceLROnPlateau(
                optimizer,
                mode="max" if higher_is_better else "min",
                factor=settings.lr_gamma,
                patience=settings.lr_patience,
            )
        )
    if per_step and steps is None:
        raise UserError(
            "lr_per",
            got="step, in a host's own loop",
            expected="epoch",
            next_step="start it with finetune.py, or set lr_per epoch and another schedule than onecycle",
        )
    factor = _factor(settings, steps if per_step and steps is not None else 1)
    return Schedule(LambdaLR(optimizer, factor), per_step=per_step)


def check_schedule(settings: Settings) -> None:
    """Refuses settings of a schedule that contradict each other.

    Raises:
        UserError: The first such pair.
    """
    kind = settings.lr_scheduler
    if kind in ("cosine", "linear") and settings.lr_eta_min >= settings.optimizer.lr:
        raise UserError(
            "lr_eta_min",
            got=settings.lr_eta_min,
            expected=f"less than optimizer.lr, which is {settings.optimizer.lr}",
            next_step="lower lr_eta_min or raise optimizer.lr",
        )
    if kind in ("onecycle", "plateau") and settings.lr_warmup:
        raise UserError(
            "lr_warmup", got=f"{settings.lr_warmup:g} with {kind}", expected="0: it is not offered there"
        )
    if kind == "plateau" and settings.lr_gamma == 1:
        raise UserError("lr_gamma", got="1 with plateau", expected="less than 1: the rate would never fall")
    if kind == "plateau" and settings.select_on == "last":
        raise UserError(
            "lr_scheduler plateau", got="select_on 'last', which measures nothing", expected="select_on 'val'"
        )
    if settings.lr_per == "epoch" and settings.lr_warmup % 1:
        raise UserError(
            "lr_warmup",
            got=settings.lr_warmup,
            expected="whole epochs",
            next_step="set lr_per step for a part of one",
        )


def _factor(settings: Settings, unit: int) -> Callable[[int], float]:
    """Returns the share of each rate after so many steps or epochs; ``unit`` of them are an epoch."""
    warmup, start = round(settings.lr_warmup * unit), settings.lr_warmup_start
    floor = settings.lr_eta_min / settings.optimizer.lr
    whole = settings.lr_T_max * unit

    def cosine(at: int) -> float:
        return floor + (1 - floor) * (1 + math.cos(math.pi * at / whole)) / 2

    def linear(at: int) -> float:
        return 1 + (floor - 1) * min(at, whole) / whole

    def step(at: int) -> float:
        return settings.lr_gamma ** (at // (settings.lr_step * unit))

    def one_cycle(at: int) -> float:
        rising, first, last = ONE_CYCLE
        total = settings.nEpochs * unit
        top = float(rising * total) - 1
        if top > 0 and at <= top:
            return _annealed(first, 1.0, at / top)
        return _annealed(1.0, last, min((at - top) / max(total - 1 - top, 1e-9), 1.0))

    after = {"cosine": cosine, "linear": linear, "step": step, "onecycle": one_cycle}.get(
        settings.lr_scheduler or "", lambda at: 1.0
    )
    return lambda at: start + (1 - start) * at / warmup if at < warmup else after(at - warmup)


def _annealed(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _advance(scheduler: LRScheduler | None) -> None:
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
    if settings.lr_scheduler == "cosine" and settings.nEpochs > settings.lr_T_max + settings.lr_warmup + 1:
        return (
            f"the cosine schedule reaches its minimum after lr_T_max {settings.lr_T_max} epochs and rises "
            f"again until epoch {settings.nEpochs}; set lr_T_max to nEpochs for a single fall"
        )
    return None
