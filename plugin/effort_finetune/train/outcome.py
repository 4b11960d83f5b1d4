"""What a finished run left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """The files of a finished run: all paths are absolute; ``published_path`` may be ``None``."""

    run_dir: Path
    results_path: Path
    best_path: Path
    last_path: Path
    published_path: Path | None
