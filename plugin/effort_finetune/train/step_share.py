"""One process's share of a step: what the others have to know of it before its gradient counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from effort_finetune.core.errors import UserError
from effort_finetune.data.batch_pieces import Batch
from effort_finetune.train.epoch_progress import EpochProgress


@dataclass
class StepShare:
    """What became of the frames of a step that were this process's; plain numbers only.

    Attributes:
        sums: Frames, missing frames and loss terms, added up.
        weight: What its losses were divided by, added up: its frames, or the sum of their class weights.
        learned: Positions of the parameters that have a gradient.
        too_large: Frames of the largest piece where memory ran out; 0 where it did not.
        broken: Guard and message where a loss was not finite.
        stop: Whether the process was asked to stop.
        rows: Of its frames, where their losses are wanted.
        losses: Cross-entropy of each of them.
    """

    sums: EpochProgress = field(default_factory=lambda: EpochProgress(0))
    weight: float = 0.0
    learned: list[int] = field(default_factory=list)
    too_large: int = 0
    broken: list[str] | None = None
    stop: bool = False
    rows: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns what :meth:`of` takes."""
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> StepShare:
        """Reads what another process told."""
        return cls(**{**told, "sums": EpochProgress.from_state(told["sums"])})


def together(shares: Sequence[StepShare]) -> StepShare:
    """Returns the step of all processes."""
    whole = StepShare(
        weight=sum(share.weight for share in shares),
        learned=sorted({position for share in shares for position in share.learned}),
        too_large=max(share.too_large for share in shares),
        broken=next((share.broken for share in shares if share.broken), None),
        stop=any(share.stop for share in shares),
        rows=[row for share in shares for row in share.rows],
        losses=[loss for share in shares for loss in share.losses],
    )
    for share in shares:
        whole.sums.add(share.sums)
    return whole


def count(group: Sequence[Batch], made: StepShare, parts: Sequence[EpochProgress]) -> None:
    """Adds a step to what is kept of an epoch."""
    for part in parts:
        part.batches += len(group)
        part.add(made.sums)


def missing_in(group: Sequence[Batch]) -> int:
    """Returns the rows of some batches that could not be read."""
    lists = [batch.get("missing") for batch in group]
    return sum(len(missing) for missing in lists if missing is not None)


def holds_batch_statistics(model: nn.Module) -> bool:
    """Tells whether what a frame gives depends on the others of its piece: batch norm, which ours has not."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


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
