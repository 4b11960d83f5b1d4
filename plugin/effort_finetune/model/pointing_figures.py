"""Which map is shown for a tower, and how often its peak lay in the forged region where that was measured.

The figures are those of ``benchmarks/pointing.py``, which writes the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from effort_finetune.core.strict_json import read_json
from effort_finetune.model.heat_map import DEFAULT

FILE = Path(__file__).with_suffix(".json")
_SHAPE = ("hidden_size", "num_hidden_layers", "patch_size", "image_size")


@dataclass(frozen=True)
class ChosenMap:
    """The map of a tower.

    Attributes:
        method: Of :data:`effort_finetune.model.heat_map.METHODS`; None where none is better than chance.
        figure: How good it is, in words; or that it was not measured.
        measured: By dataset: ``share`` of the peaks in the forged region, its ``interval``, ``chance``,
            ``fakes`` and ``videos``; empty where the tower was not measured.
    """

    method: str | None
    figure: str
    measured: Mapping[str, Mapping[str, Any]]


def tower_key(detector: Any) -> str:
    """Returns the shape of a detector's tower as a key, e.g. ``1024x24/14@224``."""
    hidden, layers, patch, side = (getattr(detector.backbone.config, name) for name in _SHAPE)
    return f"{hidden}x{layers}/{patch}@{side}"


def chosen_map(detector: Any) -> ChosenMap:
    """Returns the map that is shown for a detector.

    The figures are of a tower of the same shape on the demo's forgeries: fine-tuned on others, it may point
    better or worse.
    """
    for entry in _figures():
        if entry["tower"] != tower_key(detector):
            continue
        if not any(_better(one) for one in entry["measured"].values()):
            return ChosenMap(None, "no map of this tower points better than chance", entry["measured"])
        words = "; ".join(
            f"{name} {one['share']:.2f} [{one['interval'][0]:.2f}, {one['interval'][1]:.2f}], "
            f"chance {one['chance']:.2f}"
            + (f", on reals {one['reals']:.2f}" if one.get("reals") is not None else "")
            for name, one in entry["measured"].items()
        )
        return ChosenMap(
            entry["method"], f"peak in the forged region, {entry['name']}: {words}", entry["measured"]
        )
    return ChosenMap(DEFAULT, "how often it points at a forgery was not measured for this tower", {})


def _better(one: Mapping[str, Any]) -> bool:
    """Whether fakes are hit more often than by chance, and than the same places in their real twins."""
    return bool(one["interval"][0] > max(one["chance"], one.get("reals") or 0))


@cache
def _figures() -> tuple[Mapping[str, Any], ...]:
    return tuple(read_json(FILE)) if FILE.is_file() else ()
