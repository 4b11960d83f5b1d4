"""Which frames an epoch takes, how often and in which order: balance, quotas, hard examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from effort_finetune.core.errors import UserError, did_you_mean
from effort_finetune.core.escaping import visible
from effort_finetune.data.collect import FrameRow
from effort_finetune.data.hard_examples import HardExamples

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.frames import FrameDataset

_DATASET, _CLASS, _GROUP = itemgetter(0), itemgetter(1), itemgetter(2)


@dataclass(frozen=True)
class Unit:
    """Frames of which an epoch takes a number.

    Attributes:
        name: E.g. ``Celeb-DF-v2: CelebDFv2_real``.
        rows: Their positions ``[n]``.
        drawn: How many an epoch takes; each is taken once more only when all others were.
    """

    name: str
    rows: Tensor
    drawn: int

    def take(self, draws: torch.Generator) -> Tensor:
        """Returns ``drawn`` positions."""
        whole, rest = divmod(self.drawn, len(self.rows))
        chosen = torch.randperm(len(self.rows), generator=draws)[:rest]
        return torch.cat([self.rows.repeat(whole), self.rows[chosen]])

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers for results."""
        return {"name": self.name, "frames": len(self.rows), "drawn": self.drawn}


def plan(rows: Sequence[FrameRow], settings: Settings) -> tuple[Unit, ...]:
    """Says how many frames of which unit an epoch takes.

    As many as there are in all, shared out by ``balance``: ``none`` as they come; ``oversample`` the same
    number of both classes; ``group`` that, and within a class by ``group_weights`` over its label groups;
    ``dataset`` by ``group_weights`` over the datasets, and within one both classes the same. A group or
    dataset in ``group_quotas`` has the number that stands there instead.

    Args:
        rows: Of the training frames.
        settings: ``balance``, ``group_weights`` and ``group_quotas`` are read.

    Raises:
        UserError: If a name is no group or dataset of the rows, or weights are given that nothing reads.
    """
    balance, weights, quotas = settings.balance, settings.group_weights, settings.group_quotas
    _check_names(rows, settings)
    members: dict[tuple[str, int, str], list[int]] = {}
    for position, row in enumerate(rows):
        members.setdefault((row.dataset, row.label, row.label_name), []).append(position)
    sizes = {key: len(positions) for key, positions in members.items()}
    shares: Mapping[Any, float]
    if balance == "none":
        shares = sizes
    elif balance == "oversample":
        shares = _levels([_CLASS], {}, sizes)
    elif balance == "group":
        shares = _levels([_CLASS, _GROUP], weights, sizes)
    else:
        shares = _levels([_DATASET, _CLASS], weights, sizes)
    counts = _apportioned(len(rows), shares)
    counts |= _quotas(quotas, sizes)
    return tuple(
        Unit(
            f"{dataset}: {group}", torch.tensor(members[dataset, label, group]), counts[dataset, label, group]
        )
        for dataset, label, group in members
        if counts[dataset, label, group]
    )


def _levels(
    levels: Sequence[Any], weights: Mapping[str, float], within: Mapping[Any, int]
) -> dict[Any, float]:
    """Shares 1 out by level: each value of a level by its weight, what is left below them by size."""
    if not levels:
        total = sum(within.values())
        return {key: size / total for key, size in within.items()}
    parts: dict[Any, dict[Any, int]] = {}
    for key, size in within.items():
        parts.setdefault(levels[0](key), {})[key] = size
    weight: dict[Any, float] = {
        value: weights.get(value, 1.0) if isinstance(value, str) else 1.0 for value in parts
    }
    weighed = sum(weight.values())
    if not weighed:
        raise UserError("group_weights", got="0 for every group of a class", expected="at least one above 0")
    return {
        key: share * weight[value] / weighed
        for value, part in parts.items()
        for key, share in _levels(levels[1:], weights, part).items()
    }


def _apportioned(total: int, shares: Mapping[Any, float]) -> dict[Any, int]:
    """Shares a number out in whole ones, by largest remainder; a share of its own size is kept to the one."""
    whole = sum(shares.values())
    exact = {key: total * share / whole for key, share in shares.items()}
    counts = {key: int(value + 1e-9) for key, value in exact.items()}
    by_rest = sorted(exact, key=lambda key: counts[key] - exact[key])
    for key in by_rest[: total - sum(counts.values())]:
        counts[key] += 1
    return counts


def _quotas(quotas: Mapping[str, int], sizes: Mapping[tuple[str, int, str], int]) -> dict[Any, int]:
    """Returns the numbers of what has a quota, shared out by size among its parts."""
    counts: dict[Any, int] = {}
    for name, quota in quotas.items():
        own = {key: size for key, size in sizes.items() if name in (key[0], key[2])}
        counts |= _apportioned(quota, own)
    return counts


def _check_names(rows: Sequence[FrameRow], settings: Settings) -> None:
    groups, datasets = {row.label_name for row in rows}, {row.dataset for row in rows}
    weighed = {"group": groups, "dataset": datasets}.get(settings.balance, set())
    if settings.group_weights and not weighed:
        raise UserError(
            "group_weights",
            got=f"balance {settings.balance}, which weighs nothing",
            expected="group or dataset",
        )
    for key, given, known in (
        ("group_weights", settings.group_weights, weighed),
        ("group_quotas", settings.group_quotas, groups | datasets),
    ):
        for name in given:
            if name not in known:
                raise UserError(
                    key,
                    got=visible(name),
                    expected=f"one of {', '.join(map(visible, sorted(known)))}",
                    next_step=did_you_mean(name, sorted(known)),
                )


def order_of(dataset: FrameDataset, settings: Settings) -> tuple[Sequence[Unit] | None, HardExamples | None]:
    """Returns what the settings ask of an epoch's order: the units, and who takes hard examples again.

    Both are ``None`` where every frame comes once, in whatever order.

    Raises:
        UserError: If they name what the training frames have not.
    """
    plain = settings.balance == "none" and not settings.group_quotas and not settings.group_weights
    hard = HardExamples(len(dataset), settings.hard_examples) if settings.hard_examples else None
    return None if plain else plan(dataset.rows, settings), hard
