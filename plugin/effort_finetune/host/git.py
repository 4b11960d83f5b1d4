"""Which commit a folder is at, and whether it was changed, as git tells it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

#: Where git sets these (in a hook, say), they name another repository.
_ELSEWHERE = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"})


def commit(folder: Path, file: str) -> str | None:
    """Returns the full hash of the commit checked out at ``folder``.

    ``None`` outside git, and where that commit does not hold ``folder / file``: a copy that lies ignored
    inside another project's repository is at no commit of its own.
    """
    hashes = _git(folder, "rev-parse", "HEAD", f"HEAD:./{file}")
    return None if hashes is None else hashes.splitlines()[0]


def modified(folder: Path) -> list[str]:
    """Returns the tracked files below ``folder`` that differ from that commit, relative to ``folder``."""
    names = _git(folder, "diff", "--name-only", "--relative", "-z", "HEAD", "--", ".")
    return [name for name in (names or "").split("\0") if name]


def committed(folder: Path, path: str) -> bytes | None:
    """Returns a file's content in that commit, as a checkout writes it; ``None`` where it has none."""
    return _run(folder, "cat-file", "--filters", f"HEAD:./{path}")


def remote(folder: Path) -> str | None:
    """Returns ``owner/name`` of the remote ``origin``; ``None`` without one, or where it is a local path."""
    url = _git(folder, "config", "--get", "remote.origin.url") or ""
    found = re.fullmatch(r"(?:(?!file:)\w+://|[\w.-]+@[\w.-]+:).*?([\w.-]+)/([\w.-]+?)(?:\.git)?/?", url)
    return found and f"{found[1]}/{found[2]}"


def _git(folder: Path, *arguments: str) -> str | None:
    output = _run(folder, *arguments)
    return None if output is None else output.decode("utf-8", "surrogateescape").strip()


def _run(folder: Path, *arguments: str) -> bytes | None:
    executable = shutil.which("git")
    if executable is None:
        return None
    environment = {key: value for key, value in os.environ.items() if key not in _ELSEWHERE}
    done = subprocess.run(
        [executable, "-C", str(folder), *arguments], capture_output=True, check=False, env=environment
    )
    return done.stdout if done.returncode == 0 else None
