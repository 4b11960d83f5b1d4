"""Chooses the linear layers of a CLIP tower to decompose, checks them all, then replaces them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from effort_finetune.core.errors import UserError, suggest
from effort_finetune.core.progress import track
from effort_finetune.model.layers import SVDResidualLinear, residual_layers
from effort_finetune.svd import decompose as svd

_BLOCK = re.compile(r"(?:^|.*\.)encoder\.layers\.(\d+)\.(.+)$")


@dataclass(frozen=True)
class Status:
    """What of a tower is decomposed.

    Attributes:
        layers: Names of the decomposed layers, in the tower's order.
        ranks: The different residual ranks among them, ascending.
        blocks: Indices of the blocks they lie in, ascending.
        merged: How many of them have a merged weight at the moment.
        residual_parameters: Number of values in S, U and V together.
    """

    layers: tuple[str, ...]
    ranks: tuple[int, ...]
    blocks: tuple[int, ...]
    merged: int
    residual_parameters: int

    def line(self) -> str:
        """Returns the status in one line for a log."""
        if not self.layers:
            return "no layer is decomposed"
        rank = "/".join(map(str, self.ranks))
        return (
            f"{len(self.layers)} layers in {len(self.blocks)} blocks decomposed, residual rank {rank}, "
            f"{self.residual_parameters:,} residual parameters, {self.merged} merged"
        )


def status_of(module: nn.Module) -> Status:
    """Reads the :class:`Status` of a tower or of anything that holds one."""
    layers = residual_layers(module)
    return Status(
        layers=tuple(layers),
        ranks=tuple(sorted({layer.rank for layer in layers.values()})),
        blocks=tuple(sorted({block for name in layers if (block := block_of(name)) is not None})),
        merged=sum(layer.merged for layer in layers.values()),
        residual_parameters=sum(
            p.numel()
            for layer in layers.values()
            for p in (layer.S_residual, layer.U_residual, layer.V_residual)
        ),
    )


def block_of(name: str) -> int | None:
    """Returns the block index in a module's or parameter's name, ``None`` outside ``encoder.layers``."""
    match = _BLOCK.match(name)
    return int(match.group(1)) if match else None


def inner_name(name: str) -> str | None:
    """Returns the name inside its block, e.g. ``self_attn.q_proj``, ``None`` outside ``encoder.layers``."""
    match = _BLOCK.match(name)
    return match.group(2) if match else None


def inject(
    module: nn.Module,
    targets: Sequence[str],
    rank: int,
    layer_range: tuple[int, int] | None = None,
    *,
    decompose: Callable[[Tensor, int], svd.Split] = svd.split,
) -> Status:
    """Replaces the targeted linear layers by :class:`~effort_finetune.model.layers.SVDResidualLinear`.

    Everything is checked before the first layer is replaced, so that an error leaves the module
    as it was. Layers that are decomposed already stay as they are.

    Args:
        module: A tower whose blocks are named ``encoder.layers.I``.
        targets: Glob patterns on the name inside a block, e.g. ``self_attn.*_proj`` or ``mlp.fc?``.
        rank: Residual rank k.
        layer_range: First and last block, 0-based and inclusive; ``None`` takes all.
        decompose: How a weight is split; the cached form in production.

    Raises:
        UserError: If a pattern matches no linear layer, the range lies outside the tower, or
            the rank does not fit a targeted layer.
    """
    chosen = select(module, targets, layer_range)
    for linear in chosen.values():
        if not 1 <= rank <= min(linear.weight.shape):
            svd.check(linear.weight, rank)
    parents = dict(module.named_modules())
    replaced = {}
    for name, linear in track(chosen.items(), desc="decomposing", total=len(chosen), unit="layer"):
        replaced[name] = SVDResidualLinear.from_linear(linear, rank, decompose=decompose)
    for name, layer in replaced.items():
        parent, _, attribute = name.rpartition(".")
        setattr(parents[parent], attribute, layer)
    return status_of(module)


def select(
    module: nn.Module, targets: Sequence[str], layer_range: tuple[int, int] | None
) -> dict[str, nn.Linear]:
    """Returns the dense linear layers that ``targets`` and ``layer_range`` choose, by name.

    Raises:
        UserError: As in :func:`inject`.
    """
    inside: dict[str, tuple[int, str, nn.Module]] = {}
    for name, child in module.named_modules():
        match = _BLOCK.match(name)
        if match and isinstance(child, (nn.Linear, SVDResidualLinear)):
            inside[name] = (int(match.group(1)), match.group(2), child)
    if not inside:
        raise UserError("targets", got="a model without encoder.layers.I blocks", expected="a CLIP tower")
    check_range(layer_range, 1 + max(block for block, _, _ in inside.values()))
    names = sorted({inner for _, inner, _ in inside.values()})
    for pattern in targets:
        if not any(fnmatchcase(inner, pattern) for inner in names):
            near = suggest(pattern, names)
            raise UserError(
                f"targets pattern {pattern!r}",
                got="no linear layer of that name in a block",
                expected=f"a glob matching one of {', '.join(names)}",
                next_step=f"did you mean {near[0]!r}?" if near else None,
            )
    return {
        name: child
        for name, (block, inner, child) in inside.items()
        if isinstance(child, nn.Linear)
        and in_range(block, layer_range)
        and any(fnmatchcase(inner, pattern) for pattern in targets)
    }


def check_range(layer_range: tuple[int, int] | None, blocks: int) -> None:
    """Refuses a block range that does not lie inside a tower of ``blocks`` blocks.

    Raises:
        UserError: If it does not.
    """
    if layer_range is None:
        return
    first, last = layer_range
    if not 0 <= first <= last < blocks:
        raise UserError(
            "layer_range",
            got=f"[{first}, {last}]",
            expected=f"[first, last] with 0 <= first <= last <= {blocks - 1} (the tower has {blocks} blocks)",
        )


def in_range(block: int, layer_range: tuple[int, int] | None) -> bool:
    """Whether a block lies in the inclusive range; every block does when there is none."""
    return layer_range is None or layer_range[0] <= block <= layer_range[1]


def inject_from_shapes(module: nn.Module, ranks: Mapping[str, int]) -> Status:
    """Puts undecomposed, uninitialised layers where a checkpoint has decomposed ones.

    Args:
        module: A tower, as a rule on the meta device.
        ranks: Residual rank by layer name, as read from a checkpoint's shapes.

    Raises:
        UserError: If a name is no linear layer of the tower, or a rank does not fit it.
    """
    modules = dict(module.named_modules())
    replaced = {}
    for name, rank in ranks.items():
        linear = modules.get(name)
        if not isinstance(linear, nn.Linear):
            raise UserError(
                "checkpoint", got=f"decomposed weights for {name}", expected="a linear layer of that name"
            )
        replaced[name] = SVDResidualLinear(
            linear.in_features,
            linear.out_features,
            rank,
            bias=linear.bias is not None,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
        )
    for name, layer in replaced.items():
        parent, _, attribute = name.rpartition(".")
        setattr(modules[parent], attribute, layer)
    return status_of(module)
