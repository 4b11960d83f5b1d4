"""Which detector ``model_name`` asks for, ours or one of the host's, and how one of the host's is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from effort_finetune.config import Settings
from effort_finetune.config.resolve import OUR_NAMES
from effort_finetune.core.errors import UserError
from effort_finetune.host.detector_files import HOSTS_PREFIX, check_needs
from effort_finetune.host.ours_alone import refuse_ours_alone
from effort_finetune.host.own_detectors import build_detector
from effort_finetune.weights import first_look, safe_io, wrappers
from effort_finetune.weights.hashing import BackgroundHash

if TYPE_CHECKING:
    from effort_finetune.host import Host

OUR_NAME = OUR_NAMES[0]
LAYOUT = "host detector"

_SHOWN = 5  # keys of a state dict that an error names


@dataclass(frozen=True)
class ChosenDetector:
    """The detector that a run measures or trains.

    Attributes:
        name: Its name as it is recorded.
        asked_for: The name the settings gave.
        is_ours: Whether it is the detector of this package.
    """

    name: str
    asked_for: str
    is_ours: bool

    @property
    def setting(self) -> str:
        """``model_name`` by which a continuation asks for the same detector again."""
        return self.asked_for if not self.is_ours and self.name in OUR_NAMES else self.name

    def to_dict(self) -> dict[str, str]:
        """Returns what results record beside the weights."""
        return {"detector": self.name, "asked_for": self.asked_for}

    def lines(self) -> list[str]:
        """Returns a line for the log where the name needs one."""
        if not self.is_ours:
            return [f"detector: {self.name}, the host's own class"]
        if self.asked_for != self.name:
            theirs = f"{HOSTS_PREFIX}{self.asked_for}"
            return [f"model_name {self.asked_for} means {self.name}; {theirs} is the host's own class"]
        return []


@dataclass(frozen=True)
class HostLoadReport:
    """The weights of a host's detector, for results and log."""

    path: str
    hash: BackgroundHash = field(repr=False, compare=False)
    loaded: int
    wrappers: tuple[str, ...]
    ignored: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return self.hash.value()

    def to_dict(self) -> dict[str, Any]:
        """Returns the report for a result file."""
        return {
            "path": self.path,
            "layout": LAYOUT,
            "sha256": self.sha256,
            "wrappers": list(self.wrappers),
            "counts": {"loaded": self.loaded, "ignored": len(self.ignored)},
        }

    def lines(self) -> list[str]:
        """Returns the report for a log."""
        return [
            f"weights: {self.path} (SHA-256 {self.sha256[:16]}), {self.loaded} tensors loaded",
        ]


def choose_detector(settings: Settings, host: Host, *, training: bool) -> ChosenDetector:
    """Says which detector ``model_name`` means, and refuses what it cannot do before any data is read.

    ``effort`` is ours, ``host:effort`` the host's own class; any other name is a detector of the host.

    Args:
        settings: ``model_name`` and, for a host's detector, everything that it would not obey.
        host: The host.
        training: Whether it is to be trained.

    Raises:
        UserError: No such detector, one that needs more than frames, or a setting of ours that it ignores.
    """
    asked = settings.model_name
    if settings.trainer not in (None, OUR_NAME):
        raise UserError("trainer", got=repr(settings.trainer), expected=OUR_NAME, next_step="leave it out")
    if asked in OUR_NAMES:
        return ChosenDetector(OUR_NAME, asked, True)
    name = asked.removeprefix(HOSTS_PREFIX)
    check_needs(host, name, settings.to_dict(), training=training)
    refuse_ours_alone(settings, name)
    return ChosenDetector(name, asked, False)


def build_host_detector(
    chosen: ChosenDetector,
    settings: Settings,
    host: Host,
    weights: Path | str | None = None,
    *,
    fresh: bool = False,
) -> nn.Module:
    """Builds a detector of the host from its own configuration and loads its weights strictly.

    Args:
        chosen: Of :func:`choose_detector`.
        settings: Its YAML as resolved, with keys that only the host reads.
        host: The host.
        weights: State dict that brings every weight, ``pretrained_weights`` by default; without either it
            starts from the detector's own pretrained files.
        fresh: Build it without any file, for a run whose state brings every weight.

    Returns:
        The detector, on the CPU; with weights it has ``load_report``, a :class:`HostLoadReport`.

    Raises:
        UserError: The detector cannot be built, or the weights are not those of it.
    """
    weights = weights or settings.pretrained_weights
    # What a host's main adds to every configuration.
    own = {"model_name": chosen.name, "cuda": torch.cuda.is_available(), "ddp": False}
    config = {**settings.to_dict(), **own}
    if fresh:
        return build_detector(host, chosen.name, config, pretrained=False)
    if weights is None:
        return build_detector(host, chosen.name, config, pretrained=True)
    file = first_look.locate(Path(weights).expanduser())
    content, _ = safe_io.read_raw(file, allow_pickle=settings.allow_pickle)
    taken = wrappers.unwrap(content, f"checkpoint {file}")
    model = build_detector(host, chosen.name, config, pretrained=False)
    _load_strictly(model, taken.tensors, chosen.name, file)
    counted = len(taken.tensors)
    report = HostLoadReport(str(file), BackgroundHash(file), counted, tuple(taken.wrappers), taken.ignored)
    model.load_report = report  # type: ignore[assignment]
    return model


def _load_strictly(model: nn.Module, state: Mapping[str, torch.Tensor], name: str, file: Path) -> None:
    expected = model.state_dict()
    missing, unexpected = [k for k in expected if k not in state], [k for k in state if k not in expected]
    shapes = [k for k in expected if k in state and expected[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''})"
            for what, keys in (
                ("keys missing", missing),
                ("keys unexpected", unexpected),
                ("of another shape", shapes),
            )
            if keys
        ]
        raise UserError(
            f"--weights {file}",
            got="; ".join(parts),
            expected=f"the state dict of the host's detector {name!r}, {len(expected)} keys",
            next_step="name the checkpoint's own detector with --model_name, or its YAML",
        )
    model.load_state_dict(state, strict=True)
