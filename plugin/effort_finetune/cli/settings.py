"""``effort-finetune settings``: every key with its type, default and meaning."""

from __future__ import annotations

import argparse

from effort_finetune.cli.context import Context
from effort_finetune.config import json_schema
from effort_finetune.config.aliases import ALIASES
from effort_finetune.config.key_table import known_keys
from effort_finetune.config.wording import describe, in_yaml

NAME = "settings"
HELP = "Print every settings key as a Markdown table: type, default, meaning; and other names understood."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of form."""
    parser.add_argument(
        "--json-schema", action="store_true", help="print the JSON Schema of a settings file, for editors"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the tables, or the schema."""
    print(json_schema.as_text().rstrip() if args.json_schema else f"{table()}\n\n{aliases_table()}")
    return 0


def table() -> str:
    """Returns the Markdown table of all keys, in the schema's order."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, key in known_keys().items():
        kind = describe(key.kind, brief=True)
        rows.append(f"| `{name}` | {kind} | `{in_yaml(key.default)}` | {key.help} |")
    return "\n".join(rows)


def aliases_table() -> str:
    """Returns the Markdown table of other names."""
    rows = ["| written | sets | found in |", "|---|---|---|"]
    for name, alias in ALIASES.items():
        what = f"`{alias.key}`{f' ({alias.words})' if alias.words else ''}"
        rows.append(f"| `{name}` | {what} | {alias.found_in} |")
    return "\n".join(rows)
