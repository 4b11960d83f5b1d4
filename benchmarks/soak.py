"""Kills, signals, full disks and two at a time, against the commands themselves, on tiny data.

    python benchmarks/soak.py           # 100 kills, 20 signals, 20 full disks, 20 pairs
    python benchmarks/soak.py --kills 30 --signals 0 --disks 0 --pairs 0 --only train crop --seed 5 --add

Every round compares with a run that nobody disturbed: what was written has to be readable at once, and after
the command was given again (training: with ``--resume``) weights, results, crops, index, LMDB, exports and
the host have to be the same to the bit. A kill that came after the command's end, and a disk that was large
enough, are noted and count for nothing. Full disks are small tmpfs mounts in a mount namespace of their own,
which takes root on Linux; elsewhere these rounds are left out, and the reason is printed.

Each command is a process of its own. It is forked from one that has imported torch already, so that a kill
falls into the command's work and not into the seconds of its imports. ``--add`` adds the rounds to those
of other seeds in the output.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from soak_commands import COMMANDS, Command, prepare_inputs, run_command, unreadable

from effort_finetune.core.files import write_json
from effort_finetune.core.interrupt import SIGNALS

HERE = Path(__file__).parent
HANG = 240  # seconds: far more than any of these commands takes
ORPHANS = 15  # seconds in which loader processes have to see that their parent is gone
INSIDE = "EFFORT_FINETUNE_SOAK_NAMESPACE"
COUNTS = {"kill": 100, "signal": 20, "disk": 20, "pair": 20}
#: How a round ended that put nothing to the test.
MISSED = ("was done before", "the disk was large enough")


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
        """Waits; a command that does not end is a hang, and so is a process that it leaves behind."""
        process, log = started
        process.join(HANG)
        if process.is_alive():
            self.lost.append(f"{what}: hangs")
            _kill_group(process.pid)
            process.join()
        deadline = time.monotonic() + ORPHANS
        while _group_lives(process.pid):
            if time.monotonic() > deadline:
                self.lost.append(f"{what}: a process of it lives on")
                _kill_group(process.pid)
                break
            time.sleep(0.1)
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

    def one_line(self, code: int | None, text: str, what: str, expected: int) -> None:
        """What was disturbed says so in one line and with its exit code."""
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        if code not in (0, expected) or "Traceback" in text or (code and len(errors) != 1):
            self.lost.append(f"{what}: no one line, or exit code {code}: {text[-400:]}")

    def kill(self, command: Command) -> str:
        """One SIGKILL at a random moment."""
        folder = self.fresh(command, self.root / f"kill-{self.number}")
        what = f"kill {command.name} {folder.name}"
        started = self.start(command, folder)
        started[0].join(self.draw.uniform(0, self.reference(command)[1]))
        came = started[0].is_alive()
        started[0].kill()
        self.end(started, what)
        self.check(command, folder, what)
        shutil.rmtree(folder)
        return "killed" if came else MISSED[0]

    def signal(self, command: Command) -> str:
        """One or several signals to the command and its loader processes, at random moments."""
        folder = self.fresh(command, self.root / f"signal-{self.number}")
        started = self.start(command, folder)
        sent: list[signal.Signals] = []
        for _ in range(self.draw.choice((1, 1, 2, 3))):
            started[0].join(self.draw.uniform(0, self.reference(command)[1] / len(sent or "x")))
            if started[0].is_alive():
                sent.append(self.draw.choice(SIGNALS))
                with suppress(ProcessLookupError):
                    os.killpg(started[0].pid, sent[-1])
        what = f"signal {command.name} {folder.name} {[number.name for number in sent]}"
        code, text = self.end(started, what)
        if code not in (0, 1, 130, *(-number for number in sent)) or "Traceback" in text:
            self.lost.append(f"{what}: exit code {code}: {text[-400:]}")
        self.check(command, folder, what)
        shutil.rmtree(folder)
        return f"exit code {code}" if sent else MISSED[0]

    def disk(self, command: Command, share: float | None = None) -> str:
        """One disk that is too small for what the command writes: it has ``share`` of what that needs."""
        _, _, needed = self.reference(command)
        folder = self.root / f"disk-{self.number}"
        folder.mkdir()
        inputs = _size(self.root / f"whole-{command.name}") - needed
        share = self.draw.uniform(0.0, 0.9) if share is None else share
        size = inputs + int(share * needed)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "soak", folder], check=True)
        what = f"disk {command.name} {folder.name}"
        try:
            self.fresh(command, folder)
            code, text = self.end(self.start(command, folder), what)
            self.one_line(code, text, what, command.full_disk)
            subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)
            self.check(command, folder, what)
        finally:
            subprocess.run(["umount", folder], check=True)
        return f"exit code {code}" if code else MISSED[1]

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


def _group_lives(leader: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, 0)
        return True
    return False


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def rounds_of(
    soak: Soak, counts: dict[str, int], commands: list[Command], seconds: float
) -> dict[str, Counter[str]]:
    """Makes the rounds in random order until each kind has its count, or the time is over."""
    rounds: dict[str, Counter[str]] = {}
    todo = [(kind, commands[n % len(commands)]) for kind, count in counts.items() for n in range(count)]
    soak.draw.shuffle(todo)
    began, misses, told = time.perf_counter(), 0, 0
    while todo and time.perf_counter() - began < seconds:
        kind, command = todo.pop()
        act: Callable[[Command], str] = getattr(soak, kind)
        soak.reference(command)
        try:
            ended = act(command)
        except KeyboardInterrupt:  # what was done counts
            break
        rounds.setdefault(f"{kind} {command.name}", Counter())[ended] += 1
        for line in soak.lost[told:]:
            print(line, flush=True)
        told = len(soak.lost)
        print(f"{kind} {command.name}: {ended}; lost so far: {len(soak.lost)}", flush=True)
        if ended in MISSED and misses < 2 * sum(counts.values()):
            misses += 1
            todo.insert(0, (kind, command))
    return rounds


def added(output: Path, seed: int, rounds: dict[str, Counter[str]], lost: list[str]) -> dict[str, Any]:
    """Returns the document of these rounds and of those that the output holds already."""
    before = json.loads(output.read_text()) if output.exists() else {"seeds": [], "rounds": {}, "lost": []}
    whole = {name: Counter(ends) for name, ends in before["rounds"].items()}
    for name, ends in rounds.items():
        whole[name] = whole.get(name, Counter()) + ends
    done = dict.fromkeys(COUNTS, 0)
    for name, ends in whole.items():
        done[name.split()[0]] += sum(count for end, count in ends.items() if end not in MISSED)
    return {
        "done": done,
        "seeds": [*before["seeds"], seed],
        "rounds": {name: dict(ends) for name, ends in sorted(whole.items())},
        "lost": [*before["lost"], *lost],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for kind, count in COUNTS.items():
        parser.add_argument(f"--{kind}s", type=int, default=count)
    names = [command.name for command in COMMANDS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="commands to disturb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after this time")
    parser.add_argument("--add", action="store_true", help="add to what the output holds")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "soak.json")
    options = parser.parse_args()
    if not options.add:
        options.output.unlink(missing_ok=True)
    elif options.output.exists() and options.seed in json.loads(options.output.read_text())["seeds"]:
        parser.error(f"the output holds seed {options.seed} already; take another --seed")
    reason = enter_namespace()
    counts = {kind: getattr(options, f"{kind}s") for kind in COUNTS}
    if reason and counts["disk"]:
        print(f"full disks left out: {reason}")
        counts["disk"] = 0
    with tempfile.TemporaryDirectory(prefix="effort-soak-") as scratch:
        soak = Soak(Path(scratch), options.seed)
        prepare_inputs(soak.inputs)
        commands = [command for command in COMMANDS if command.name in options.only]
        rounds = rounds_of(soak, counts, commands, options.seconds)
    document = added(options.output, options.seed, rounds, soak.lost)
    write_json(options.output, document)
    print(", ".join(f"{count} {kind}s" for kind, count in document["done"].items()), end="; ")
    print(f"lost: {len(document['lost'])}, of these now: {len(soak.lost)}")
    return 1 if soak.lost else 0


def enter_namespace() -> str | None:
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
