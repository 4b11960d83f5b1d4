"""``effort-finetune settings``: every key with its type, default and meaning."""

from __future__ import annotations

import argparse

from effort_finetune.cli.context import Context
from effort_finetune.config.key_table import known_keys
from effort_finetune.config.wording import describe, in_yaml

NAME = "settings"
HELP = "Print every settings key as a Markdown table: type, default, meaning."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command has no options."""


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the table."""
    print(table())
    return 0


def table() -> str:
    """Returns the Markdown table of all keys, in the schema's order."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, key in known_keys().items():
        kind = describe(key.kind, brief=True)
        rows.append(f"| `{name}` | {kind} | `{in_yaml(key.default)}` | {key.help} |")
    return "\n".join(rows)
