"""``effort-finetune hub push FOLDER ID`` and ``hub pull ID``: models on a model hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from effort_finetune.cli.context import Context

NAME = "hub"
HELP = (
    "Share a model on a model hub, or fetch one. `export RUN_FOLDER --to hub-folder` makes the folder; "
    "HF_TOKEN or `hf auth login` gives access, HF_ENDPOINT names another server than the public one."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``push`` and ``pull``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="push|pull")
    push = actions.add_parser("push", help="upload a folder of `export --to hub-folder`")
    push.add_argument("folder", type=Path, help="the folder")
    push.add_argument("hub_id", help="OWNER/NAME")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    pull = actions.add_parser("pull", help="download weights, card and results")
    pull.add_argument("hub_id", help="OWNER/NAME")
    pull.add_argument("--output", type=Path, help="folder to write (default: NAME)")
    for parser_of in (push, pull):
        parser_of.add_argument("--revision", help="branch, tag or commit (default: main)")


def run(args: argparse.Namespace, context: Context) -> int:
    """Pushes or pulls, and says where things are.

    Raises:
        UserError: If the hub refuses or cannot be reached, or a folder is not as it should be.
    """
    from effort_finetune.export import hub_transfer

    if args.action == "push":
        print(hub_transfer.push(args.folder, args.hub_id, private=args.private, revision=args.revision))
        return 0
    folder = args.output or Path(args.hub_id.rpartition("/")[2])
    for path in hub_transfer.pull(args.hub_id, folder, revision=args.revision):
        print(f"{path} ({path.stat().st_size:,} bytes)")
    return 0
