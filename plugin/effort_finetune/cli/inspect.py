"""``effort-finetune inspect FILE``: what a checkpoint holds, without loading it into anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from effort_finetune.cli.context import Context
from effort_finetune.weights.first_look import look_at

NAME = "inspect"
HELP = "show what a checkpoint file holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", type=Path, help="weights file, model folder or adapter")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every key by class")
    parser.add_argument("--base", type=Path, help="base of an adapter, when it is not where it was")
    parser.add_argument(
        "--head_width", type=int, help="width of an attention head (default: as stated, or 64)"
    )
    parser.add_argument(
        "--hidden_act", choices=("quick_gelu", "gelu"), help="activation (default: as stated, or quick_gelu)"
    )
    parser.add_argument(
        "--allow_pickle", action="store_true", help="let the file run code; only for files you trust"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints layout, sizes, counts and the file's SHA-256.

    Returns:
        0, also for a file with missing or unexpected keys: showing them is what the command is for.
    """
    look_at(args.file)
    from effort_finetune.weights.inspection import inspect_file  # torch

    document = inspect_file(
        args.file,
        base=args.base,
        head_width=args.head_width,
        hidden_act=args.hidden_act,
        allow_pickle=args.allow_pickle,
    )
    print(json.dumps(document, indent=2) if args.json else _text(document))
    return 0


def _text(document: dict[str, Any]) -> str:
    """Lays the document out in two columns; keys by class as a count, the rule and the first few names."""
    rows: list[tuple[str, str]] = []
    for name, value in document.items():
        if name in ("derived", "ignored"):
            rows += [(name, f"{_names(keys)} ({rule})") for rule, keys in value.items()]
        elif name == "notes":
            rows += [("note", note) for note in value]
        elif name in ("missing", "unexpected"):
            rows += [(name.upper(), _names(value))] * bool(value)
        elif isinstance(value, dict):
            rows += [(name, ", ".join(f"{key} {item}" for key, item in value.items()))] * bool(value)
        elif isinstance(value, list):
            rows += [(name, " > ".join(value))] * bool(value)
        else:
            rows.append((name, f"{value:,}" if isinstance(value, int) else str(value or "none")))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {text}" for name, text in rows)


def _names(keys: list[str], shown: int = 3) -> str:
    return f"{len(keys)}: {', '.join(keys[:shown])}{', …' if len(keys) > shown else ''}"
