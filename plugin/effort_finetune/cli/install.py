"""``effort-finetune install PATH``: adds the plugin to a DeepfakeBench checkout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import UserError
from effort_finetune.host import Host, locate, open_host
from effort_finetune.install.installation import execute, plan_install
from effort_finetune.install.plan import Plan
from effort_finetune.install.record import MANIFEST
from effort_finetune.install.transaction import is_interrupted, recover

NAME = "install"
HELP = "Add the plugin to a DeepfakeBench checkout: entry points, detector, trainer, flags."

_WORDS = {"patch": "patched", "add": "added", "restore": "restored", "remove": "removed"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_host_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="show the changes as a diff, make none")


def add_host_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the host's path, which the commands of this family share."""
    parser.add_argument(
        "path", nargs="?", type=Path, help="the checkout, the folder that holds training/ (default: found)"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Installs, or shows what would be done."""
    host = open_checkout(args.path, context)
    if host.kind == "embedded":
        print("the embedded host has the plugin built in; nothing to install")
        return 0
    settle(host, dry_run=args.dry_run)
    plan = plan_install(host)
    if args.dry_run:
        show_diff(plan)
        return 0
    execute(plan, verify=True)
    report(plan, nothing="installed already; nothing changed")
    if plan.changes:
        print(f"recorded in {MANIFEST}; undo with: effort-finetune uninstall {host.root}")
    return 0


def find_checkout(path: Path | None, context: Context) -> Host:
    """Opens the host a command of this family works on: the one named, else the one found."""
    return open_host(path if path is not None else locate(script=context.script))


def open_checkout(path: Path | None, context: Context) -> Host:
    """Opens the host a command of this family works on and says which one it is."""
    host = find_checkout(path, context)
    commit = f"commit {host.commit[:7]}" if host.commit else "not under git"
    edits = ", with local edits" if host.dirty else ""
    print(f"{host.name} at {host.root} ({commit}{edits})")
    return host


def settle(host: Host, *, dry_run: bool = False) -> None:
    """Completes or drops what a killed install or uninstall left behind; a dry run refuses to go on."""
    if dry_run:
        if is_interrupted(host.root):
            raise UserError(
                f"an install or uninstall of {host.root} was cut off",
                next_step="run the command without --dry-run, which settles it first",
            )
        return
    outcome = recover(host.root)
    if outcome:
        print(f"an earlier command was interrupted here; its changes were {outcome}")


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
