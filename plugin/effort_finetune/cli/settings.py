"""``effort-finetune settings``: every key with its type, default and meaning."""

from __future__ import annotations

import argparse
import types
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from effort_finetune.cli.context import Context
from effort_finetune.config import Settings
from effort_finetune.config.resolve import known_keys

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
    for key, (annotation, metadata) in known_keys().items():
        kind = _kind(annotation).replace("|", "\\|")
        rows.append(f"| `{key}` | {kind} | `{_text(_default(key))}` | {metadata['help']} |")
    return "\n".join(rows)


def _default(key: str) -> Any:
    value: Any = Settings()
    for part in key.split("."):
        value = getattr(value, part)
    assert not is_dataclass(value)
    return value


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(annotation: Any) -> str:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(_kind(m) for m in members)
    if origin is Literal:
        return " | ".join(map(str, members))
    if origin is tuple:
        return (
            f"list of {_kind(members[0])}"
            if members[-1] is Ellipsis
            else f"{len(members)} x {_kind(members[0])}"
        )
    if origin is not None:
        return "mapping"
    names = {type(None): "null", str: "text", bool: "true | false", int: "whole number", float: "number"}
    return names[annotation]
