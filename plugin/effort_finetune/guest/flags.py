"""Reading a host script's command line before the script does."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from effort_finetune.config.flag_words import from_flag
from effort_finetune.config.key_table import known_keys
from effort_finetune.config.wording import takes_list

_ALIASES = {"lr": "optimizer.lr", "weight_decay": "optimizer.weight_decay"}
_PREFIX = "effort_finetune:"


def detector_yaml(argv: Sequence[str]) -> dict[str, Any]:
    """The detector's YAML as the host is about to read it; empty where the host will complain itself."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--detector_path")
    path = parser.parse_known_args(list(argv))[0].detector_path
    if path is None or not Path(path).is_file():
        return {}
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return tree if isinstance(tree, dict) else {}


def wants_help(argv: Sequence[str]) -> bool:
    """Tells whether ``-h`` or ``--help`` is there."""
    return bool({"-h", "--help"} & set(argv))


def flag_value(argv: Sequence[str], name: str) -> str | None:
    """The word after ``--name`` or in ``--name=word``; ``None`` when the flag is not there."""
    for index, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag == f"--{name}":
            return value if equals else next(iter(argv[index + 1 : index + 2]), "")
    return None


def add_settings_flags(parser: argparse.ArgumentParser, argv: Sequence[str], shown: Iterable[str]) -> None:
    """Adds a flag for every settings key that ``argv`` uses, and for ``shown`` when it asks for help.

    Flags that are not used are not added: an abbreviation that a user of another detector has typed
    would become ambiguous.
    """
    taken = {option for action in parser._actions for option in action.option_strings}
    used = {word.partition("=")[0].removeprefix("--") for word in argv if word.startswith("--")}
    keys = known_keys()
    wanted = used & {*keys, *_ALIASES} | (set(shown) if wants_help(argv) else set())
    group = parser.add_argument_group(
        "effort_finetune", "and every key of effort_finetune.yaml, dotted: --optimizer.lr 0.001"
    )
    for key in sorted(wanted):
        if f"--{key}" not in taken:
            shown_key = keys[_ALIASES.get(key, key)]
            group.add_argument(
                f"--{key}",
                dest=f"{_PREFIX}{key}",
                nargs="+" if takes_list(shown_key.kind) else None,
                metavar="V",
                help=shown_key.help.replace("%", "%%"),
            )


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags, by key."""
    keys = known_keys()
    given: dict[str, Any] = {}
    for name, value in vars(args).items():
        if name.startswith(_PREFIX) and value is not None:
            key = _ALIASES.get(name.removeprefix(_PREFIX), name.removeprefix(_PREFIX))
            values = [from_flag(word, keys[key]) for word in ([value] if isinstance(value, str) else value)]
            given[key] = values[0] if len(values) == 1 else values
    return given


def set_dotted(config: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Sets keys in a host's nested configuration; an optimiser's values where upstream reads them."""
    for key, value in settings.items():
        path = key.split(".")
        if path[0] == "optimizer" and len(path) == 2 and path[1] != "type":
            path.insert(1, config["optimizer"]["type"])
        node = config
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
