"""What a host's script says of itself, read from its source: its flags and how it makes its trainer.

The script cannot be asked: its parser stands between imports that need the host's packages and a GPU.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TYPES = {"int": int, "float": float, "str": str}


@dataclass(frozen=True)
class Option:
    """One ``add_argument`` call of a host's script.

    Attributes:
        names: Its flags, ``--detector_path`` say.
        arguments: The keyword arguments that are plain values, as ``argparse`` takes them.
    """

    names: tuple[str, ...]
    arguments: dict[str, Any]

    @property
    def takes(self) -> str | None:
        """How many words follow: ``None`` for one, ``"0"`` for a switch, else ``nargs``."""
        action = self.arguments.get("action", "store")
        if action in ("store_true", "store_false", "count", "help", "version", "store_const"):
            return "0"
        nargs = self.arguments.get("nargs")
        return None if nargs is None else str(nargs)


def options(script: Path) -> list[Option]:
    """Returns the flags that a script's parser knows, in their order."""
    return list(_options(ast.parse(script.read_bytes(), filename=str(script))))


def option_names(script: Path) -> set[str]:
    """Returns the names of a script's flags."""
    return {name for option in options(script) for name in option.names}


def _options(tree: ast.Module) -> Iterator[Option]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", None) != "add_argument":
            continue
        names = tuple(
            arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
        )
        if not names or not all(name.startswith("-") for name in names):
            continue
        arguments: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg == "type":
                arguments["type"] = _TYPES.get(getattr(keyword.value, "id", ""), str)
            elif keyword.arg is not None:
                try:
                    arguments[keyword.arg] = ast.literal_eval(keyword.value)
                except ValueError:
                    continue  # computed at run time
        yield Option(names, arguments)


def trainer_calls(script: Path) -> list[tuple[int, int, tuple[str, ...]]]:
    """Returns each ``Trainer(...)`` of a script: its line, positional arguments and keyword names.

    Calls that unpack a list or a mapping are left out; only running them would tell.
    """
    found = []
    for node in ast.walk(ast.parse(script.read_bytes(), filename=str(script))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Trainer":
            keywords = [keyword.arg for keyword in node.keywords]
            if None not in keywords and not any(isinstance(arg, ast.Starred) for arg in node.args):
                found.append((node.lineno, len(node.args), tuple(str(name) for name in keywords)))
    return found
