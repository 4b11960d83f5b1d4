"""The processes a run was made by: a resumed run is one run of several, perhaps on several machines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import torch

from effort_finetune.core import ranks
from effort_finetune.core.device import device_name
from effort_finetune.core.precision import Precision
from effort_finetune.evaluate.provenance import code_version


class Processes:
    """The record of this process and of those before it; several that run at once are one entry.

    A process that was killed is on record up to the last state it saved; what it did after that was lost,
    and is done again.

    Args:
        device: Of this process.
        precision: Of this process.
        started: ``time.perf_counter()`` at its start.
    """

    def __init__(self, device: torch.device, precision: Precision, started: float) -> None:
        code = code_version()
        self._started = started
        self._earlier: list[Mapping[str, Any]] = []
        self._own = {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "from_epoch": None,
            "from_batch": 0,
            "device": device_name(device),
            "ranks": ranks.current().size,
            "precision": precision.name,
            "commit": code["commit"],
            "dirty": code["dirty"],
        }

    def begin(self, epoch: int, batch: int, earlier: Sequence[Mapping[str, Any]] = ()) -> None:
        """Says where this process takes up the run, and what :meth:`to_list` of the one before was."""
        self._own |= {"from_epoch": epoch, "from_batch": batch}
        self._earlier = list(earlier)

    def to_list(self) -> list[dict[str, Any]]:
        """Returns one entry a process, this one with its seconds so far as the last."""
        return [*map(dict, self._earlier), {**self._own, "seconds": time.perf_counter() - self._started}]

    def seconds(self) -> float:
        """Returns the wall-clock time of all processes."""
        return sum(entry["seconds"] for entry in self.to_list())
