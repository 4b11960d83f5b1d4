"""Whole commands where a machine is tight: little shared memory, few open files, full disks, other starts.

    python benchmarks/pressure.py
    python benchmarks/pressure.py --cases spawn disks --add

`finetune` and `evaluate` with two loader processes on tiny data, each under a /dev/shm of 64 MB and of 1 MB,
with 64 and 24 open files, and with workers that are spawned or come from a fork server: all have to end and
to write the same bits as an undisturbed run. Then training, evaluation, crop, lmdb, export and install on
disks that hold a share of what each writes: one line, exit code 1 (install: 2), nothing half-written, and the
same bits once there is space. A small /dev/shm and a small disk are each a tmpfs in a mount namespace of
their own, which takes root on Linux; elsewhere they are left out, and that is printed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from soak import Soak, enter_namespace
from soak_commands import COMMANDS, MEASURE, TRAIN, numbers_of_run, prepare_inputs, run_command, with_host

from effort_finetune.core.files import write_json
from effort_finetune.data.loader import START_METHOD

HERE = Path(__file__).parent
LIMIT = 1800  # seconds: a run that takes longer hangs; spawned workers import torch first
_NEW_NAMESPACE, _PRIVATE, _RECURSIVE = 0x00020000, 1 << 18, 1 << 14
CASES: dict[str, dict[str, Any]] = {
    "undisturbed": {},
    "/dev/shm of 64 MB": {"shm": 64},
    "/dev/shm of 1 MB": {"shm": 1},
    "ulimit -n 64": {"files": 64},
    "ulimit -n 24": {"files": 24},
    "spawn": {"start": "spawn"},
    "forkserver": {"start": "forkserver"},
}
#: Of what the command writes, the part that its disk has room for.
SHARES = (0.0, 0.3, 0.6, 0.9)
ON_DISKS = ("train", "evaluate", "crop", "lmdb", "export", "install")
JOB = (*(word if word != "0" else "2" for word in TRAIN), "--nEpochs", "2")


def tight(case: dict[str, Any], words: tuple[str, ...], folder: str, log: str) -> None:
    """Makes the machine tight for this process, and runs a command in it."""
    if "shm" in case:
        libc = ctypes.CDLL(None, use_errno=True)
        size = f"size={case['shm']}m".encode()
        if (
            libc.unshare(_NEW_NAMESPACE)
            or libc.mount(b"none", b"/", None, _PRIVATE | _RECURSIVE, None)
            or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, size)
        ):
            os._exit(77)
    if "files" in case:
        resource.setrlimit(resource.RLIMIT_NOFILE, (case["files"], case["files"]))
    if "start" in case:
        os.environ[START_METHOD] = case["start"]
    run_command(words, folder, log)


def in_cases(root: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """Runs both commands in each case; says how each ended, and whether the bits are the undisturbed ones."""
    context = multiprocessing.get_context("fork")
    found: dict[str, dict[str, str]] = {}
    wanted: dict[str, dict[str, str]] = {}
    prepare_inputs(root / "inputs", crops=False, run=False)
    for number, name in enumerate(("undisturbed", *names)):
        folder = root / str(number)
        with_host(root / "inputs", folder)
        for command, words, out in (("finetune", JOB, "run"), ("evaluate", MEASURE, "measured")):
            log = root / f"{number}-{command}.log"
            process = context.Process(target=tight, args=(CASES[name], words, str(folder), str(log)))
            process.start()
            process.join(LIMIT)
            if process.is_alive():
                process.kill()
                end = "hangs"
            elif process.exitcode == 77:
                end = "left out: mounting takes root on Linux"
            elif process.exitcode:
                end = f"exit code {process.exitcode}: {log.read_text(errors='replace')[-300:]}"
            else:
                numbers = numbers_of_run(folder, out)
                wanted.setdefault(command, numbers)
                warned = "loader processes are started" in log.read_text(errors="replace")
                same = numbers == wanted[command]
                end = ("same bits" if same else "other bits") + (", fewer workers" if warned else "")
            found.setdefault(name, {})[command] = end
            print(f"{name}, {command}: {end}", flush=True)
        if name != "undisturbed":
            shutil.rmtree(folder)
    return found


def on_full_disks(root: Path) -> dict[str, str]:
    """Runs commands on disks with too little room, then with enough; says how each ended."""
    soak, found = Soak(root, seed=0), {}
    prepare_inputs(soak.inputs)
    for command in (command for command in COMMANDS if command.name in ON_DISKS):
        ends = {share: soak.disk(command, share) for share in SHARES}
        lost = "; ".join(line for line in soak.lost if f"disk {command.name} " in line)
        said = ", ".join(f"room for {share:.0%}: {end}" for share, end in ends.items())
        found[command.name] = lost or f"same bits once there was space; {said}"
        print(f"full disk, {command.name}: {found[command.name]}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "pressure.json")
    choices = [*list(CASES)[1:], "disks"]
    parser.add_argument("--cases", nargs="+", choices=choices, default=choices)
    parser.add_argument("--add", action="store_true", help="keep the other cases that the output holds")
    options = parser.parse_args()
    reason = enter_namespace()
    cases = [name for name in options.cases if name != "disks"]
    found = json.loads(options.output.read_text()) if options.add and options.output.exists() else {}
    with tempfile.TemporaryDirectory(prefix="effort-pressure-") as scratch:
        if cases:
            found |= in_cases(Path(scratch) / "cases", cases)
        if "disks" in options.cases:
            left_out = dict.fromkeys(ON_DISKS, f"left out: {reason}")
            found["full disk"] = left_out if reason else on_full_disks(Path(scratch) / "disks")
    write_json(options.output, found)
    good = ("same bits", "left out")
    return int(not all(end.startswith(good) for ends in found.values() for end in ends.values()))


if __name__ == "__main__":
    sys.exit(main())
