"""What a run is asked to do, as one frozen object: settings, host and the command that was typed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from effort_finetune.config import Settings
    from effort_finetune.host.host import Host


@dataclass(frozen=True, slots=True)
class Part:
    """What a stage of a run knows of the whole.

    Attributes:
        number: Of the stage, from 1.
        whole: The settings of the whole run.
        folder: Of the whole run: what ``--resume`` names.
        logs: Where the whole run's log goes beside its folder.
        earlier: What the stages before this one were, as results have it.
    """

    number: int
    whole: Settings
    folder: Path
    logs: tuple[Path, ...] = ()
    earlier: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """Settings and host, which every part of a run needs together.

    Attributes:
        settings: Resolved settings.
        host: The host that owns the data.
        command: The command line as typed, for results and the line that resumes; its first word may be a
            program of two words, ``effort-finetune finetune``.
        part: Where this is a stage of a run, what it knows of the whole.
    """

    settings: Settings
    host: Host
    command: tuple[str, ...] = ()
    part: Part | None = None

    def changed(self, **settings: Any) -> Job:
        """Returns the job with other values of some settings."""
        return replace(self, settings=self.settings.changed(**settings))

    def command_line(self, *more: str, without: str | None = None) -> str:
        """Returns the command as it can be typed in a shell again.

        Args:
            more: Words to add at its end.
            without: A flag to leave out with its value.
        """
        program, *words = self.command or ("effort-finetune",)
        if without in words:
            at = words.index(without)
            del words[at : at + 2]
        return f"{program} {shlex.join([*words, *more])}".rstrip()
