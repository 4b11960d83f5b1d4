"""Which commit a folder is at, and whether it was changed, as git tells it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def commit(folder: Path) -> str | None:
    """Returns the full hash of the commit checked out at ``folder``; ``None`` outside git."""
    return _git(folder, "rev-parse", "HEAD")


def is_dirty(folder: Path) -> bool | None:
    """Tells whether tracked files below ``folder`` differ from that commit; ``None`` outside git."""
    if commit(folder) is None:
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return None if status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    executable = shutil.which("git")
    if executable is None:
        return None
    done = subprocess.run(
        [executable, "-C", str(folder), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
