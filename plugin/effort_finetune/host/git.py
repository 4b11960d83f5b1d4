"""Which commit a folder is at, and whether it was changed, as git tells it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def commit(folder: Path) -> str | None:
    """Returns the full hash of the commit checked out at ``folder``; ``None`` outside git."""
    return _git(folder, "rev-parse", "HEAD")


def modified(folder: Path) -> list[str] | None:
    """Returns the tracked files below ``folder`` that differ from that commit, relative to ``folder``.

    ``None`` outside git.
    """
    if commit(folder) is None:
        return None
    names = _git(folder, "diff", "--name-only", "--relative", "-z", "HEAD", "--", ".")
    return None if names is None else [name for name in names.split("\0") if name]


def committed(folder: Path, path: str) -> bytes | None:
    """Returns a file's content in that commit, as a checkout writes it; ``None`` where it has none."""
    return _run(folder, "cat-file", "--filters", f"HEAD:./{path}")


def _git(folder: Path, *arguments: str) -> str | None:
    output = _run(folder, *arguments)
    return None if output is None else output.decode("utf-8", "surrogateescape").strip()


def _run(folder: Path, *arguments: str) -> bytes | None:
    executable = shutil.which("git")
    if executable is None:
        return None
    done = subprocess.run([executable, "-C", str(folder), *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None
