"""Decides which parameters are trained, and counts them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError, suggest
from effort_finetune.model.inject import block_of, check_range, in_range
from effort_finetune.model.layers import RESIDUAL_NAMES

GROUPS = ("residual", "head", "lora", "layernorm", "main", "bias", "other")
# The names that guides to other towers use for CLIP's modules.
_COMMON_NAMES = {"backbone.layer.": "backbone.encoder.layers.", "attention": "self_attn"}


@dataclass(frozen=True)
class TrainableStatus:
    """What of a detector is trained.

    Attributes:
        trainable: Number of trained values.
        total: Number of values in all parameters.
        by_group: Trained values by group: ``residual``, ``head``, ``lora`` (DoRA's lengths included),
            ``layernorm``, ``main`` (the frozen parts of decomposed layers), ``bias`` (of linear layers) and
            ``other``; empty groups are left out.
        names: Names of the trained parameters.
    """

    trainable: int
    total: int
    by_group: dict[str, int]
    names: tuple[str, ...]

    def line(self) -> str:
        """Returns the counts in one line for a log."""
        groups = ", ".join(f"{name} {count:,}" for name, count in self.by_group.items())
        share = 100 * self.trainable / self.total
        return f"trainable: {self.trainable:,} of {self.total:,} parameters ({share:.3f} %): {groups}"


def configure_trainable(detector: nn.Module, settings: Settings) -> TrainableStatus:
    """Sets ``requires_grad`` of every parameter of a detector.

    ``tune_mode`` replaces the three switches: ``head`` trains the head; ``residual`` residuals
    and head (Effort); ``osf`` the same with projected gradients; ``lora`` and ``dora`` PEFT's adapters and
    the head; ``layernorm`` the layer norms and the head (LN-tuning); ``bitfit`` every bias, those of the
    norms too, and the head (arXiv 2106.10199); ``full`` every dense weight and the head: a decomposed layer
    then trains its ``weight_main`` with the residual fixed, which moves the sum exactly as training the
    dense weight would.
    ``layer_range`` limits blocks: parameters of blocks outside it are trained only when
    ``unfreeze`` names them.

    Args:
        detector: A module with ``backbone`` and ``head``.
        settings: ``freeze_backbone``, ``train_svd_residuals``, ``train_classification_head``,
            ``unfreeze``, ``layer_range`` and ``tune_mode`` are read.

    Raises:
        UserError: If a pattern matches no parameter, the range lies outside the tower, or
            nothing is left to train.
    """
    parameters = dict(detector.named_parameters())
    blocks = [block for name in parameters if (block := block_of(name)) is not None]
    check_range(settings.layer_range, 1 + max(blocks, default=-1))
    groups = _trained_groups(settings)
    unfrozen = matching(settings.unfreeze, tuple(parameters))
    for name, parameter in parameters.items():
        block = block_of(name)
        reached = block is None or in_range(block, settings.layer_range)
        wanted = group_of(name) in groups
        if settings.tune_mode == "bitfit":
            wanted = name.endswith(".bias") or wanted
        parameter.requires_grad_((wanted and reached) or name in unfrozen)
    status = count(detector)
    if not status.names:
        raise UserError(
            "trainable parameters",
            got="none",
            expected="at least one of train_svd_residuals, train_classification_head, unfreeze, tune_mode",
        )
    return status


def count(detector: nn.Module) -> TrainableStatus:
    """Counts the parameters that require a gradient."""
    by_group = dict.fromkeys(GROUPS, 0)
    names, total = [], 0
    for name, parameter in detector.named_parameters():
        total += parameter.numel()
        if parameter.requires_grad:
            names.append(name)
            by_group[group_of(name)] += parameter.numel()
    used = {group: number for group, number in by_group.items() if number}
    return TrainableStatus(sum(used.values()), total, used, tuple(names))


def group_of(name: str) -> str:
    """Returns the group of a parameter by its name in the detector; see :class:`TrainableStatus`."""
    leaf = name.rpartition(".")[2]
    if leaf in RESIDUAL_NAMES:
        return "residual"
    if leaf == "weight_main":
        return "main"
    if name.startswith("head."):
        return "head"
    if ".lora_" in name:
        return "lora"
    if re.search(r"(layer_?norm\w*|pre_layrnorm)\.(weight|bias)$", name):
        return "layernorm"
    return "bias" if leaf == "bias" else "other"


def matching(patterns: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    """Returns the parameter names that any pattern matches.

    A pattern with ``*``, ``?`` or ``[`` is a glob on the whole name, or, when that matches nothing,
    on any part of it; any other is a substring.
    ``backbone.layer.`` and ``attention``, common in guides, mean ``backbone.encoder.layers.``
    and ``self_attn``.

    Raises:
        UserError: If a pattern matches nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        hits = _hits(pattern, names) or _hits(_translated(pattern), names)
        if not hits:
            near = suggest(pattern, _vocabulary(names))
            raise UserError(
                f"unfreeze pattern {pattern!r}",
                got="no parameter of that name",
                expected="part of a parameter name, or a glob",
                next_step="try " + " or ".join(repr(n) for n in near or _examples(names)),
            )
        found |= hits
    return frozenset(found)


def _trained_groups(settings: Settings) -> frozenset[str]:
    if settings.tune_mode is not None:
        return {
            "head": frozenset({"head"}),
            "residual": frozenset({"head", "residual"}),
            "osf": frozenset({"head", "residual"}),
            "lora": frozenset({"head", "lora"}),
            "dora": frozenset({"head", "lora"}),
            "layernorm": frozenset({"head", "layernorm"}),
            "bitfit": frozenset({"head"}),
            "full": frozenset({"head", "layernorm", "main", "bias", "other"}),
        }[settings.tune_mode]
    groups = set() if settings.freeze_backbone else {"layernorm", "main", "bias", "other"}
    if settings.train_svd_residuals:
        groups.add("residual")
    if settings.train_classification_head:
        groups.add("head")
    return frozenset(groups)


def _hits(pattern: str, names: Sequence[str]) -> set[str]:
    if not any(c in pattern for c in "*?["):
        return {n for n in names if pattern in n}
    whole = {n for n in names if fnmatchcase(n, pattern)}
    return whole or {n for n in names if fnmatchcase(n, f"*{pattern}*")}


def _translated(pattern: str) -> str:
    if pattern == "backbone.layer" or pattern.startswith("backbone.layer*"):
        pattern = pattern.replace("backbone.layer", "backbone.layer.", 1)
    for common, ours in _COMMON_NAMES.items():
        pattern = pattern.replace(common, ours)
    return pattern


def _vocabulary(names: Sequence[str]) -> list[str]:
    """Whole names and their dotted parts, so that a typo in either finds its neighbour."""
    parts = {part for name in names for part in name.split(".") if not part.isdigit()}
    suffixes = {name.rpartition(".")[0] for name in names}
    return sorted(parts | suffixes | set(names) | set(_COMMON_NAMES))


def _examples(names: Sequence[str]) -> list[str]:
    return [n for n in names if block_of(n) is not None][-1:] or list(names[:1])
