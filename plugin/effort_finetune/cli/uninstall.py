"""``effort-finetune uninstall PATH``: takes the plugin out of a DeepfakeBench checkout again."""

from __future__ import annotations

import argparse

from effort_finetune.cli.context import Context
from effort_finetune.cli.install import add_host_argument, open_checkout, report, show_diff
from effort_finetune.install.installation import plan_uninstall
from effort_finetune.install.writing import execute, only_one, remove_leftovers

NAME = "uninstall"
HELP = "Take the plugin out of a DeepfakeBench checkout; your own edits stay."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_host_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="show the changes as a diff, make none")


def run(args: argparse.Namespace, context: Context) -> int:
    """Uninstalls, or shows what would be done."""
    host = open_checkout(args.path, context)
    if host.embedded:
        print("the embedded host has the plugin built in; nothing to uninstall")
        return 0
    if args.dry_run:
        show_diff(plan_uninstall(host))
        return 0
    with only_one(host.root):
        remove_leftovers(host.root)
        plan = plan_uninstall(host)
        execute(plan)
    report(plan, nothing="not installed; nothing changed")
    return 0
