"""Kills, full disks and two at a time, against the commands themselves, on a tiny tower and tiny data.

    python benchmarks/soak.py                                    # 100 kills, 20 full disks, 20 pairs
    python benchmarks/soak.py --kills 7 --disks 4 --pairs 4      # does it run?

Every round compares with a run that nobody disturbed: what was written has to be readable at once, and after
the command was given again (training: with ``--resume``) weights, results, crops, index, LMDB, exports and
the host have to be the same to the bit. Full disks are small tmpfs mounts in a mount namespace of their own,
which takes root on Linux; elsewhere these rounds are left out, and the reason is printed.

Each command is a process of its own. It is forked from one that has imported torch already, so that a kill
falls into the command's work and not into the seconds of its imports.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from soak_commands import COMMANDS, Command, prepare_inputs, run_command, unreadable

from effort_finetune.core.files import write_json

HERE = Path(__file__).parent
HANG = 240  # seconds: far more than any of these commands takes
INSIDE = "EFFORT_FINETUNE_SOAK_NAMESPACE"


class Soak:
    """Rounds of trouble and what they lost."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.draw = root, random.Random(seed)
        self.inputs = root / "inputs"
        self.context = multiprocessing.get_context("fork")
        self.number = 0
        self.lost: list[str] = []
        self.undisturbed: dict[str, tuple[dict[str, str], float, int]] = {}

    def start(self, command: Command, folder: Path, *, again: bool = False) -> Any:
        """Starts a command in ``folder``; its output goes to a file that lies outside."""
        self.number += 1
        log = self.root / f"{self.number}.log"
        words = command.again(folder) if again else command.words
        process = self.context.Process(target=run_command, args=(words, str(folder), str(log)))
        process.start()
        return process, log

    def end(self, started: Any, what: str) -> tuple[int | None, str]:
        """Waits; a command that does not end is a hang."""
        process, log = started
        process.join(HANG)
        if process.is_alive():
            self.lost.append(f"{what}: hangs")
            process.kill()
            process.join()
        return process.exitcode, log.read_text(errors="replace") if log.exists() else ""

    def fresh(self, command: Command, folder: Path) -> Path:
        """Puts what the command needs into a folder."""
        command.make(self.inputs, folder)
        return folder

    def reference(self, command: Command) -> tuple[dict[str, str], float, int]:
        """What the command writes when nobody disturbs it, the seconds it takes and the bytes it needs."""
        if command.name not in self.undisturbed:
            folder = self.fresh(command, self.root / f"whole-{command.name}")
            before, started = _size(folder), time.perf_counter()
            code, text = self.end(self.start(command, folder), command.name)
            if code != 0:
                raise SystemExit(f"{command.name} fails undisturbed:\n{text}")
            seconds = time.perf_counter() - started
            self.undisturbed[command.name] = command.outputs(folder), seconds, _size(folder) - before
        return self.undisturbed[command.name]

    def check(self, command: Command, folder: Path, what: str) -> None:
        """Gives the command again and compares with the undisturbed one."""
        for problem in unreadable(folder):
            self.lost.append(f"{what}: {problem}")
        code, text = self.end(self.start(command, folder, again=True), what)
        if code != 0:
            self.lost.append(f"{what}: given again it ends with {code}: {text[-400:]}")
            return
        found, wanted = command.outputs(folder), self.reference(command)[0]
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                self.lost.append(f"{what}: {name} differs")
        for path in folder.rglob(".*.tmp"):
            self.lost.append(f"{what}: {path.name} stays")

    def kill(self, command: Command) -> str:
        """One random kill; says whether it came before the command's end."""
        seconds = self.reference(command)[1]
        folder = self.fresh(command, self.root / f"kill-{self.number}")
        started = self.start(command, folder)
        started[0].join(self.draw.uniform(0, seconds))
        came = started[0].is_alive()
        started[0].kill()
        started[0].join()
        self.check(command, folder, f"kill {command.name} {folder.name}")
        shutil.rmtree(folder)
        return "killed" if came else "was done before"

    def disk(self, command: Command) -> str:
        """One disk that is too small for what the command writes."""
        _, _, needed = self.reference(command)
        folder = self.root / f"disk-{self.number}"
        folder.mkdir()
        inputs = _size(self.root / f"whole-{command.name}") - needed
        size = inputs + int(self.draw.uniform(0.1, 0.9) * needed) + 65536
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "soak", folder], check=True)
        what = f"disk {command.name} {folder.name}"
        try:
            self.fresh(command, folder)
            code, text = self.end(self.start(command, folder), what)
            errors = [line for line in text.splitlines() if line.startswith("error: ")]
            if code not in (0, 1, 2) or "Traceback" in text or (code and len(errors) != 1):
                self.lost.append(f"{what}: no one line, exit code {code}: {text[-400:]}")
            subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)
            self.check(command, folder, what)
        finally:
            subprocess.run(["umount", folder], check=True)
        return f"exit code {code}"

    def pair(self, command: Command) -> str:
        """The command twice at once in the same place."""
        folder = self.fresh(command, self.root / f"pair-{self.number}")
        what = f"pair {command.name} {folder.name}"
        started = [self.start(command, folder)]
        time.sleep(self.draw.uniform(0, self.reference(command)[1] / 2))
        started.append(self.start(command, folder))
        ends = [self.end(one, what) for one in started]
        for code, text in ends:
            refused = (code == 2 and "in use" in text) or "being written" in text
            if code != 0 and not refused:
                self.lost.append(f"{what}: exit code {code}: {text[-400:]}")
        if all(code != 0 for code, _ in ends):
            self.lost.append(f"{what}: neither of two got through")
        self.check(command, folder, what)
        shutil.rmtree(folder)
        return "one refused" if any(code for code, _ in ends) else "both done"


def _size(folder: Path) -> int:
    """Bytes on a tmpfs: whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--disks", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after this time")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "soak.json")
    options = parser.parse_args()
    reason = _enter_namespace()
    rounds: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="effort-soak-") as scratch:
        soak = Soak(Path(scratch), options.seed)
        prepare_inputs(soak.inputs)
        began = time.perf_counter()
        kinds = [("kill", soak.kill, options.kills), ("disk", soak.disk, options.disks)]
        kinds.append(("pair", soak.pair, options.pairs))
        todo = [
            (kind, act, COMMANDS[number % len(COMMANDS)])
            for kind, act, count in kinds
            for number in range(count)
            if kind != "disk" or reason is None
        ]
        soak.draw.shuffle(todo)
        for kind, act, command in todo:
            if time.perf_counter() - began > options.seconds:
                break
            try:
                ended = act(command)
            except KeyboardInterrupt:  # what was done counts
                break
            rounds.setdefault(f"{kind} {command.name}", Counter())[ended] += 1
            print(f"{kind} {command.name}: {ended}; lost so far: {len(soak.lost)}", flush=True)
    totals = {
        kind: sum(sum(n.values()) for key, n in rounds.items() if key.split()[0] == kind)
        for kind in ("kill", "disk", "pair")
    }
    document = {
        "asked": {"kill": options.kills, "disk": options.disks, "pair": options.pairs},
        "done": totals,
        "rounds": {name: dict(ends) for name, ends in sorted(rounds.items())},
        "left_out": reason and f"full disks: {reason}",
        "lost": soak.lost,
        "seed": options.seed,
    }
    write_json(options.output, document)
    for line in soak.lost:
        print(line)
    print(
        f"{totals['kill']} kills, {totals['disk']} full disks, {totals['pair']} pairs; lost: {len(soak.lost)}"
    )
    if reason:
        print(f"full disks left out: {reason}")
    return 1 if soak.lost else 0


def _enter_namespace() -> str | None:
    """Starts this script again where its mounts are nobody else's; says why that cannot be."""
    if os.environ.get(INSIDE):
        return None
    command = ["unshare", "-m", "--propagation", "private"]
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return "mounting takes root on Linux"
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        return "no mount namespace can be made here"
    os.execvpe(command[0], [*command, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})


if __name__ == "__main__":
    sys.exit(main())
