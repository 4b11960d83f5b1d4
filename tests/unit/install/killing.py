"""Kills a command with SIGKILL at every change it makes on the disk, and looks at what is left.

A program of its own, run by ``test_killed.py``: it imports the commands once and forks, so that each run is
a process that really dies, without the seconds that an interpreter takes to import torch. Where to die is
asked of Python's audit events: nothing of the package is replaced, and no write can be forgotten.

    killing.py install|uninstall HOST WORK [--replace]
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - before the forks, as all of these

from effort_finetune.cli import install, status, uninstall  # noqa: F401
from effort_finetune.cli.main import main
from effort_finetune.core.locks import LOCK_NAME
from effort_finetune.guest import host_results, registry  # noqa: F401
from effort_finetune.host import module_loader  # noqa: F401

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
os.fsync = lambda descriptor: None  # the kernel lives on, and hundreds of commands need not wait for a disk


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
    # The lock of a command that was killed stays until the next one, and says nothing of the host.
    return {
        str(path.relative_to(root)): oct(path.stat().st_mode)
        + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(root.rglob("*"))
        if path.name != LOCK_NAME
    }


def broken(root: Path) -> str:
    """Imports the host's packages in a process of its own; returns what stopped that."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        sys.path.insert(0, str(root / "training"))
        sys.dont_write_bytecode = True
        try:
            for name in ("detectors", "metrics.utils", "train", "test"):
                for loaded in [each for each in sys.modules if each.split(".")[0] in (name, "metrics")]:
                    del sys.modules[loaded]
                importlib.import_module(name)
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    os.waitpid(process, 0)
    return said


def deaths(command: str, options: list[str], untouched: Path, work: Path) -> dict[str, Any]:
    """Kills ``command`` at each change; then ``status``, and each command from there, in new processes."""
    installed = shutil.copytree(untouched, work / "installed")
    assert forked("install", str(installed), *options)[0] == SURVIVED
    options = options if command == "install" else []
    start = {"install": untouched, "uninstall": installed}[command]
    seen = []
    for n in itertools.count():
        trial = shutil.copytree(start, work / f"{n}")
        ended, _ = forked(command, str(trial), *options, death=Death(trial, n))
        if ended == SURVIVED:
            break
        found = {"ended": ended, "left": tree(trial), "status": forked("status", str(trial), "--json")[1]}
        found["after_status"] = tree(trial)
        found["broken"] = broken(trial)
        for again in ("install", "uninstall"):
            copy = shutil.copytree(trial, work / f"{n}-{again}")
            found[again] = (*forked(again, str(copy)), tree(copy))
        seen.append(found)
    return {"untouched": tree(untouched), "installed": tree(installed), "deaths": seen}


if __name__ == "__main__":
    print(json.dumps(deaths(sys.argv[1], sys.argv[4:], Path(sys.argv[2]), Path(sys.argv[3]))))
