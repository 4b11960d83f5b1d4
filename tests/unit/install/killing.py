"""Kills a command with SIGKILL at every change it makes on the disk, and looks at what is left.

A program of its own, run by ``test_killed.py``: it imports the commands once and forks, so that each run is
a process that really dies, without the seconds that an interpreter takes to import torch. Where to die is
asked of Python's audit events: nothing of the package is replaced, and no write can be forgotten.

    killing.py install|uninstall HOST WORK
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from effort_finetune.cli import install, status, uninstall  # noqa: F401 - before the forks
from effort_finetune.cli.main import main
from effort_finetune.install import installation

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGING = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.link",
    "os.symlink",
    "os.truncate",
}
SURVIVED = 0


class Death:
    """An audit hook that ends its process at the ``n``-th change below ``root``.

    Opening a file for writing counts twice: before it is there, and with half of its content written.
    """

    def __init__(self, root: Path, n: int) -> None:
        self.root, self.left = str(root), n

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        opens = event == "open" and bool(arguments[2] & WRITING)
        if not opens and event not in CHANGING:
            return
        path = arguments[0]
        if isinstance(path, int) or not os.fspath(path).startswith(self.root):
            return
        if event == "os.mkdir" and os.path.isdir(path):
            return
        self._count()
        if opens:
            self._count(torn=Path(path))

    def _count(self, torn: Path | None = None) -> None:
        self.left -= 1
        if self.left == -1:
            if torn is not None:
                torn.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)


def forked(*arguments: str, death: Death | None = None) -> tuple[int, str]:
    """Runs a command in a process of its own; returns ``os.waitpid``'s status and what it printed."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        code = 70
        try:
            os.dup2(writing, 1)
            if death is not None:
                sys.addaudithook(death)
            code = main(arguments)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        printed = stream.read()
    return os.waitpid(process, 0)[1], printed


def tree(root: Path) -> dict[str, str]:
    """Every folder and file below ``root``: mode and content."""
    return {
        str(path.relative_to(root)): oct(path.stat().st_mode)
        + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(root.rglob("*"))
    }


def deaths(command: str, untouched: Path, work: Path) -> dict[str, Any]:
    """Kills ``command`` at each change; then ``status``, and each command from there, in new processes."""
    installed = shutil.copytree(untouched, work / "installed")
    assert forked("install", str(installed))[0] == SURVIVED
    start = {"install": untouched, "uninstall": installed}[command]
    seen = []
    for n in itertools.count():
        trial = shutil.copytree(start, work / f"{n}")
        ended, _ = forked(command, str(trial), death=Death(trial, n))
        if ended == SURVIVED:
            break
        found = {"ended": ended, "left": tree(trial), "status": forked("status", str(trial), "--json")[1]}
        found["after_status"] = tree(trial)
        for again in ("install", "uninstall"):
            copy = shutil.copytree(trial, work / f"{n}-{again}")
            found[again] = (*forked(again, str(copy)), tree(copy))
        seen.append(found)
    return {"untouched": tree(untouched), "installed": tree(installed), "deaths": seen}


if __name__ == "__main__":
    # The import of the changed host in yet another interpreter: it costs seconds and writes nothing.
    installation._import_complaint = lambda root: None
    print(json.dumps(deaths(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
