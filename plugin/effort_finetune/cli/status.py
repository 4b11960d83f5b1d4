"""``effort-finetune status PATH``: how the plugin stands in a DeepfakeBench checkout."""

from __future__ import annotations

import argparse
import json

from effort_finetune.cli.context import Context
from effort_finetune.cli.install import add_host_argument, find_checkout
from effort_finetune.install.record import FINE_STATES, MANIFEST, is_installed, read_record, status
from effort_finetune.install.transaction import is_interrupted

NAME = "status"
HELP = "Show how the plugin stands in a DeepfakeBench checkout; exit code 1 if something needs attention."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_host_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the state of every file; 0 when all is well or nothing is installed."""
    host = find_checkout(args.path, context)
    files = [] if host.kind == "embedded" else status(host)
    record = read_record(host.root)
    interrupted = is_interrupted(host.root)
    installed = host.kind == "embedded" or is_installed(record, files)
    lost = host.kind != "embedded" and installed and not record and not interrupted
    fine = not installed or all(file.state in FINE_STATES for file in files)
    healthy = fine and not lost and not interrupted
    if args.json:
        document = {
            "host": host.provenance(),
            "root": str(host.root),
            "installed": installed,
            "version": record.get("version"),
            "interrupted": interrupted,
            "files": {file.path: file.state for file in files},
        }
        print(json.dumps(document, indent=2))
        return 0 if healthy else 1
    commit = f"commit {host.commit[:7]}" if host.commit else "not under git"
    print(f"{host.name} at {host.root} ({commit})")
    if host.kind == "embedded":
        print("the plugin is built in")
    elif lost:
        print(f"installed, but its record {MANIFEST} is lost")
    else:
        print(f"installed by version {record.get('version')}" if record else "not installed")
    for file in files:
        print(f"  {file.state:<14} {file.path}")
    if interrupted:
        print(f"an install or uninstall was cut off here; next: effort-finetune install {host.root}")
    elif any(file.state == "edited" for file in files):
        print("next: undo the edit inside our lines, or move it out of the block and delete the block")
    elif not healthy:
        print(f"next: effort-finetune install {host.root}")
    return 0 if healthy else 1
