"""``effort-finetune status PATH``: how the plugin stands in a DeepfakeBench checkout."""

from __future__ import annotations

import argparse
import json

from effort_finetune.cli.context import Context
from effort_finetune.cli.install import add_host_argument, find_checkout
from effort_finetune.install.record import FINE_STATES, MANIFEST, is_installed, read_record, status

NAME = "status"
HELP = "Show how the plugin stands in a DeepfakeBench checkout; exit code 1 if something needs attention."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_host_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the state of every file; 0 when all is well or nothing is installed."""
    host = find_checkout(args.path, context)
    files = [] if host.embedded else status(host)
    record = read_record(host.root)
    installed = host.embedded or is_installed(record, files)
    lost = not host.embedded and installed and record.version is None
    healthy = not installed or (not lost and all(file.state in FINE_STATES for file in files))
    if args.json:
        document = {
            "host": host.provenance(),
            "root": str(host.root),
            "installed": installed,
            "version": record.version,
            "files": {file.path: file.state for file in files},
            "left": record.left,
        }
        print(json.dumps(document, indent=2))
        return 0 if healthy else 1
    commit = f"commit {host.commit[:7]}" if host.commit else "not under git"
    print(f"{host.name} at {host.root} ({commit})")
    if host.embedded:
        print("the plugin is built in")
    elif lost:
        print(f"installed, but its record {MANIFEST} is lost")
    else:
        print("not installed" if record.version is None else f"installed by version {record.version}")
    for file in files:
        why = f" ({record.left[file.path]})" if file.path in record.left else ""
        print(f"  {file.state:<14} {file.path}{why}")
    if any(file.state == "edited" for file in files):
        print("next: undo the edit inside our lines, or move it out of the block and delete the block")
    elif not healthy:
        print(f"next: effort-finetune install {host.root}")
    return 0 if healthy else 1
