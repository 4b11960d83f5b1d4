"""``effort-finetune install PATH``: adds the plugin to a DeepfakeBench checkout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.host import Host, locate, named_host, open_host
from effort_finetune.install.installation import plan_install
from effort_finetune.install.plan import Plan
from effort_finetune.install.record import MANIFEST
from effort_finetune.install.writing import execute, only_one, remove_leftovers

NAME = "install"
HELP = "Add the plugin to a DeepfakeBench checkout: entry points, detector, trainer, flags."

_WORDS = {
    "patch": "patched",
    "add": "added",
    "replace": "replaced",
    "restore": "restored",
    "remove": "removed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_host_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="show the changes as a diff, make none")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="put our finetune.py and evaluate_finetune.py in the place of yours; uninstall puts yours back",
    )


def add_host_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the host's path, which the commands of this family share."""
    parser.add_argument(
        "path", nargs="?", type=Path, help="the checkout, or the folder that holds it (default: found)"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Installs, or shows what would be done."""
    host = open_checkout(args.path, context)
    if host.embedded:
        print("the embedded host has the plugin built in; nothing to install")
        return 0
    if args.dry_run:
        show_diff(plan_install(host, replace=args.replace))
        return 0
    with only_one(host.root):
        remove_leftovers(host.root)
        plan = plan_install(host, replace=args.replace)
        execute(plan)
    report(plan, nothing="installed already; nothing changed")
    if plan.changes:
        print(f"recorded in {MANIFEST}; undo with: effort-finetune uninstall {host.root}")
    return 0


def find_checkout(path: Path | None, context: Context) -> Host:
    """Opens the host a command of this family works on: the one named, else the one found."""
    return open_host(named_host(path) if path is not None else locate(script=context.script, embedded=False))


def open_checkout(path: Path | None, context: Context) -> Host:
    """Opens the host a command of this family works on and says which one it is."""
    host = find_checkout(path, context)
    commit = f"commit {host.commit[:7]}" if host.commit else "not under git"
    edits = ", with local edits" if host.dirty else ""
    print(f"{host.name} at {host.root} ({commit}{edits})")
    return host


def show_diff(plan: Plan) -> None:
    """Prints what a plan would do."""
    sys.stdout.flush()
    sys.stdout.buffer.write(plan.diff())  # a host's files may be in any encoding
    sys.stdout.buffer.flush()
    report(Plan(plan.root, (), plan.notes), nothing=f"dry run: {_count(plan)}, nothing was written")


def report(plan: Plan, *, nothing: str) -> None:
    """Prints what a plan did, a line a file."""
    for change in plan.changes:
        if change.action in _WORDS:
            print(f"  {_WORDS[change.action]:<9} {change.path}")
    for note in plan.notes:
        print(f"  note      {note}")
    if not plan.changes:
        print(nothing)


def _count(plan: Plan) -> str:
    number = sum(change.path != MANIFEST for change in plan.changes)
    return f"{number} file{'' if number == 1 else 's'} would change"
