"""What every command is given beside its arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """Where a command was started from and how.

    Args:
        script: The host's script that called, or ``None`` for the console command.
        argv: The command line as typed, for the result's record.
    """

    script: Path | None = None
    argv: tuple[str, ...] = field(default_factory=tuple)
