"""``effort-finetune uninstall PATH``: takes the plugin out of a DeepfakeBench checkout again."""

from __future__ import annotations

import argparse

from effort_finetune.cli.context import Context
from effort_finetune.cli.install import add_host_argument, open_checkout, report, settle, show_diff
from effort_finetune.install.installation import execute, plan_uninstall

NAME = "uninstall"
HELP = "Take the plugin out of a DeepfakeBench checkout; your own edits stay."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_host_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="show the changes as a diff, make none")


def run(args: argparse.Namespace, context: Context) -> int:
    """Uninstalls, or shows what would be done."""
    host = open_checkout(args.path, context)
    if host.kind == "embedded":
        print("the embedded host has the plugin built in; nothing to uninstall")
        return 0
    settle(host, dry_run=args.dry_run)
    plan = plan_uninstall(host)
    if args.dry_run:
        show_diff(plan)
        return 0
    execute(plan)
    report(plan, nothing="not installed; nothing changed")
    return 0
