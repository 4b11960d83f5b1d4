"""How this process was started: alone, or by ``torchrun`` as one of several of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from effort_finetune.core.errors import UserError

ALONE_WITH_DDP = (
    "--ddp: there is one process, and the run is that of one process; next: torchrun --nproc_per_node N"
)
_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """The place of this process among those of its run.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        local_rank: Its number on this machine, from 0: that of its GPU.
        local_size: How many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def is_alone() -> bool:
    """Tells whether no launcher says that there are others."""
    return _number("WORLD_SIZE") in (None, 1)


def is_first() -> bool:
    """Tells whether this process speaks for its run: it is alone, or the one of rank 0."""
    return is_alone() or _number("RANK") == 0


def refuse_several(command: str, next_step: str) -> None:
    """Refuses a launcher for a command of which every process would do, and write, all of it.

    Args:
        command: Its name.
        next_step: How its work is shared out, or that one process does it.

    Raises:
        UserError: If there are several processes.
    """
    if not is_alone():
        raise UserError(
            f"{command} under a launcher",
            got=f"WORLD_SIZE {os.environ['WORLD_SIZE'].strip()}",
            expected="one process",
            next_step=next_step,
        )


def note_local_rank(value: str | int | None) -> None:
    """Takes ``--local_rank``, by which launchers before torchrun said what LOCAL_RANK says now."""
    if value is not None and "LOCAL_RANK" not in os.environ:
        os.environ["LOCAL_RANK"] = str(value)


def read_launch() -> Launch:
    """Returns what the environment says of this process.

    Raises:
        UserError: If it says that there are several and not which one this is, or how to reach the others.
    """
    size = _number("WORLD_SIZE")
    if size in (None, 1) and os.environ.get("WORLD_SIZE", "1").strip() in ("", "1"):
        return Launch()
    lacking = [
        name
        for name in _NEEDED
        if not os.environ.get(name) or (name != "MASTER_ADDR" and _number(name) is None)
    ]
    if not lacking and size is not None:
        launch = Launch(
            _number("RANK") or 0, size, _number("LOCAL_RANK") or 0, _number("LOCAL_WORLD_SIZE") or size
        )
        if size >= 1 and launch.rank < size:
            return launch
    raise UserError(
        f"WORLD_SIZE {os.environ.get('WORLD_SIZE')!r} in the environment",
        got=", ".join(f"{name} {os.environ.get(name)!r}" for name in lacking or ("RANK",)),
        expected="what torchrun sets",
        next_step="start it with torchrun --nproc_per_node N, or unset WORLD_SIZE",
    )


def _number(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdigit() and len(text) < 10 else None
