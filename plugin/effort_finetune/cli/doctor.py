"""``effort-finetune doctor``: would a run work here, and if not, what to do about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

from effort_finetune.cli.context import Context
from effort_finetune.cli.doctor_packages import packages
from effort_finetune.cli.options import add_settings_arguments, open_run
from effort_finetune.core.errors import UserError
from effort_finetune.host import Host, locate, open_host
from effort_finetune.install.finding import Finding

NAME = "doctor"
HELP = (
    "Check the machine, the host, the data and the weights; every finding comes with its fix; exit code 1 "
    "when a run would fail"
)

_MARKS = {"ok": "ok", "note": "note", "warning": "WARN", "error": "ERROR"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_settings_arguments(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the findings; 0 when a run would work, 1 when a finding is an error, as having no data is."""
    findings = list(_examine(args, context))
    ok = all(finding.level != "error" for finding in findings)
    if args.json:
        print(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, indent=2))
        return 0 if ok else 1
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            print(area)
        print(f"  {_MARKS[finding.level]:<5} {finding.what}")
        if finding.fix:
            print(f"        -> {finding.fix}")
    numbers = {level: sum(finding.level == level for finding in findings) for level in ("error", "warning")}
    print(", ".join(f"{number} {level}{'' if number == 1 else 's'}" for level, number in numbers.items()))
    return 0 if ok else 1


def _examine(args: argparse.Namespace, context: Context) -> Iterator[Finding]:
    present = list(packages())
    yield from present
    if any(finding.level == "error" for finding in present):  # what follows imports them
        return
    yield from _with_packages(args, context)


def _with_packages(args: argparse.Namespace, context: Context) -> Iterator[Finding]:
    from effort_finetune.cli import doctor_checks as checks  # torch, which may not be there
    from effort_finetune.install.known_problems import find_traps

    yield from checks.machine()
    try:
        host = open_host(locate(args.host, script=context.script))
    except UserError as error:
        yield from _as_findings("host", error)
        return
    yield from checks.host(host)
    yield from _guarded("host", lambda: checks.installation(host))
    yield from find_traps(host)
    yield from _guarded("settings", lambda: _with_settings(args, context, host))


def _with_settings(args: argparse.Namespace, context: Context, host: Host) -> Iterator[Finding]:
    from effort_finetune.cli import doctor_checks as checks

    _, settings = open_run(args, context, mode="test")
    yield Finding("settings", "ok", f"{settings.model_name}: all keys known, all values in bounds")
    yield from _guarded("device", lambda: checks.device(settings))
    yield from _guarded("weights", lambda: checks.weights(settings))
    yield from _guarded("data", lambda: checks.datasets(host, settings))
    _, training = open_run(args, context, mode="train")  # the host's train_config.yaml may name a log_dir
    yield from checks.disk(host, training)


def _guarded(area: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yields a check's findings, and as one more the user error that ended it."""
    try:
        yield from check()
    except UserError as error:
        yield from _as_findings(area, error)


def _as_findings(area: str, error: UserError) -> Iterator[Finding]:
    for each in getattr(error, "errors", (error,)):
        clauses = [each.what]
        if each.got is not None:
            clauses.append(f"got {each.got}")
        if each.expected is not None:
            clauses.append(f"expected {each.expected}")
        yield Finding(area, "error", " ".join("; ".join(clauses).split()), each.next_step or "")
