"""One thing that ``effort-finetune doctor`` looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: What it belongs to, e.g. ``host`` or ``data``.
        level: ``ok``; ``note`` (good to know); ``warning`` (something will not work); ``error`` (a run of
            the plugin would fail).
        what: One line.
        fix: What to do about it; empty for ``ok``.
    """

    area: str
    level: Level
    what: str
    fix: str = ""
