"""What has to be the same in all processes of a run, looked at before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from effort_finetune.core.errors import UserError
from effort_finetune.core.ranks import Ranks
from effort_finetune.core.version import __version__
from effort_finetune.train.step_share import holds_batch_statistics

if TYPE_CHECKING:
    from effort_finetune.config import Settings


def refuse_what_differs(model: nn.Module) -> None:
    """Refuses a model whose result depends on how its frames are spread over processes.

    Raises:
        UserError: If it keeps statistics of a batch, or draws at random in its forward pass.
    """
    drops = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in model.modules())
    if drops or holds_batch_statistics(model):
        raise UserError(
            "torchrun",
            got=f"a detector with {'dropout' if drops else 'batch norm'}, another one in each process",
            expected="one whose frames do not depend on each other: ours",
            next_step="start it without torchrun",
        )


def check_agreement(ours: Ranks, settings: Settings, frames: Mapping[str, str]) -> None:
    """Refuses to start processes that would make different runs.

    Raises:
        UserError: Naming the first process that differs from the first one, and in what.
    """
    own = {"version": __version__, "settings": settings.digest(), **frames}
    told = ours.exchange(own)
    for rank, other in enumerate(told):
        differing = [name for name, value in told[0].items() if other.get(name) != value]
        if differing:
            raise UserError(
                f"process {rank} of {ours.size}",
                got=f"other {' and other '.join(differing)} than process 0",
                expected="the same in all processes",
                next_step="give every machine the same command, version and data",
            )
