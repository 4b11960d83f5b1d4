"""Puts tower and head together from a checkpoint, from plain CLIP or from a given tower."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.core.seeding import derive
from effort_finetune.model import backbone as tower_room
from effort_finetune.model import preprocessing
from effort_finetune.model.inject import inject, inject_from_shapes, inner_name
from effort_finetune.model.layers import residual_layers
from effort_finetune.svd.cache import cached_split
from effort_finetune.weights.reader import Checkpoint, LoadReport, load_into, read_checkpoint

_ENERGY = ".residual_energy_ref"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assembled:
    """A tower, decomposed, and its head; ``load_report`` is ``None`` for a given tower."""

    backbone: nn.Module
    head: nn.Linear
    load_report: LoadReport | None


class _Whole(nn.Module):
    """Gives tower and head the canonical names ``backbone.*`` and ``head.*`` while they are loaded."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


def assemble(settings: Settings, tower: nn.Module | None = None) -> Assembled:
    """Builds the model that the settings ask for.

    Args:
        settings: ``pretrained_weights``, ``clip_path`` and what shapes the residuals are read.
        tower: A dense tower to decompose in place of reading a file.

    Raises:
        UserError: If the weights cannot be found, read or used as asked.
    """
    if tower is not None:
        shape = tower_room.shape_of(tower)
        _require("resolution", settings.resolution, shape["image_size"])
        if settings.hidden_act is not None:
            _require("hidden_act", settings.hidden_act, shape["hidden_act"])
        _decompose(tower, settings, settings.targets)
        return Assembled(tower, new_head(shape["hidden_size"], settings.manualSeed), None)
    if settings.pretrained_weights is not None:
        return _read(settings, Path(settings.pretrained_weights))
    return _read(settings, tower_room.locate_clip(settings.clip_path))


def new_head(hidden: int, seed: int) -> nn.Linear:
    """Makes the head ``[2, hidden]`` with torch's default initialisation from a stream of the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "head"))
        return nn.Linear(hidden, 2)


def _read(settings: Settings, source: Path) -> Assembled:
    checkpoint = read_checkpoint(
        source,
        allow_pickle=settings.allow_pickle,
        head_width=settings.head_width,
        hidden_act=settings.hidden_act,
        find_base=lambda name: _find_base(name, settings.clip_path),
        allow_base_mismatch=settings.allow_base_mismatch,
        merge_adapters=settings.resume is None,
    )
    checkpoint.require_resolution(settings.resolution)
    checkpoint.notes += preprocessing.mismatches(settings, checkpoint.statement, str(source))
    tower = tower_room.build_tower(checkpoint.vision_config)
    ranks = checkpoint.residual_ranks
    checkpoint.notes += _other_ranks(settings, ranks, source)
    inject_from_shapes(tower, ranks)
    if checkpoint.head_outputs is None:
        head = new_head(checkpoint.hidden_size, settings.manualSeed)
    else:
        head = nn.Linear(checkpoint.hidden_size, 2, device="meta")
    energies = _take_energies(checkpoint, settings)
    report = load_into(checkpoint, _Whole(tower, head))
    tower_room.fill_buffers(tower)
    for name, energy in energies.items():
        tower.get_submodule(name).residual_energy_ref = energy
    _decompose(tower, settings, _still_dense(tower, settings.targets))
    return Assembled(tower, head, report)


def _other_ranks(settings: Settings, ranks: Mapping[str, int], source: Path) -> tuple[str, ...]:
    """Returns the notes about residuals whose rank is the checkpoint's and not the settings'.

    Raises:
        UserError: If the settings ask for another rank than the default's and no layer would get it.
    """
    other = sorted(set(ranks.values()) - {settings.residual_rank})
    if not other:
        return ()
    found = ", ".join(map(str, other))
    inner = {inner_name(name) for name in ranks}
    further = [p for p in settings.targets if not any(fnmatchcase(name, p) for name in inner if name)]
    if settings.residual_rank != Settings().residual_rank and not further:
        raise UserError(
            "residual_rank",
            got=f"{settings.residual_rank}; the residuals of {source} have rank {found}",
            expected="the checkpoint's rank, which its weights fix",
            next_step="leave residual_rank out, or start from plain CLIP: with clip_path, or from "
            "`effort-finetune export FILE --to merged`, which can be decomposed anew",
        )
    note = (
        f"residual_rank is {settings.residual_rank}, the checkpoint's residuals have rank {found}: the "
        "checkpoint's is used" + (f"; {settings.residual_rank} for {', '.join(further)}" if further else "")
    )
    logger.warning("%s", note)
    return (note,)


def _find_base(name: str, clip_path: str) -> Path | None:
    """Offers ``clip_path`` as an adapter's base; a hub id only when it is the one the adapter names."""
    if name == clip_path or Path(clip_path).expanduser().exists():
        return tower_room.locate_clip(clip_path)
    return None


def _take_energies(checkpoint: Checkpoint, settings: Settings) -> dict[str, Tensor]:
    """Takes the singular-value loss's references out of a checkpoint of ours, by layer in the tower."""
    energies = {}
    for key in [k for k in checkpoint.tensors if k.endswith(_ENERGY)]:
        tensor = checkpoint.tensors.pop(key)
        if settings.loss.ksv_weight > 0:
            energies[key.removeprefix("backbone.").removesuffix(_ENERGY)] = tensor.clone()
        else:
            checkpoint.ignored[key] = "reference of the singular-value loss, whose weight is 0"
    return energies


def _decompose(tower: nn.Module, settings: Settings, targets: Sequence[str]) -> None:
    if targets:
        inject(tower, targets, settings.residual_rank, settings.layer_range, decompose=cached_split)


def _still_dense(tower: nn.Module, targets: Sequence[str]) -> tuple[str, ...]:
    """Returns the patterns that match no decomposed layer yet.

    A checkpoint decides about the layers it holds decomposed; a pattern beyond them (say
    ``mlp.fc1`` over an Effort checkpoint) asks for further ones.
    """
    inner = {inner_name(name) for name in residual_layers(tower)}
    return tuple(p for p in targets if not any(fnmatchcase(name, p) for name in inner if name))


def _require(setting: str, asked: object, found: object, *, where: str = "the tower") -> None:
    if asked != found:
        raise UserError(
            setting,
            got=f"{asked} in the settings, {found} in {where}",
            expected="the same in both",
            next_step=f"set {setting}: {found}",
        )
