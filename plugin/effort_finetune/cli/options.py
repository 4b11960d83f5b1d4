"""Flags that are settings: ``--nEpochs 3``, ``--optimizer.lr 0.001``, ``--train_dataset A B``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from effort_finetune.cli.context import Context
from effort_finetune.config import Settings, resolve
from effort_finetune.config.flag_words import from_flag
from effort_finetune.config.key_table import Key, known_keys
from effort_finetune.core.errors import UserError
from effort_finetune.host import locate, open_host

if TYPE_CHECKING:
    from effort_finetune.host import Host

_TOP_LEVEL = {"lr": "optimizer.lr", "weight_decay": "optimizer.weight_decay"}
# Which flags a command shows under its own heading; the rest of the schema follows under "settings".
_FIRST = (
    "train_dataset",
    "val_dataset",
    "test_dataset",
    "pretrained_weights",
    "resume",
    "output_dir",
    "nEpochs",
)


def add_settings_arguments(parser: argparse.ArgumentParser, *, skip: tuple[str, ...] = ()) -> None:
    """Adds ``--host``, ``--detector_config`` and one flag for every key of the settings.

    Args:
        parser: The command's parser.
        skip: Keys the command sets by flags of its own.
    """
    parser.add_argument(
        "--host", type=Path, help="DeepfakeBench checkout to work in (default: found by itself)"
    )
    parser.add_argument(
        "--detector_config", type=Path, help="detector YAML (default: the host's effort_finetune.yaml)"
    )
    # argparse would list all seventy flags in the usage line.
    parser.usage = "%(prog)s [options]"
    keys = known_keys()
    main_group = parser.add_argument_group("run")
    others = parser.add_argument_group("settings", "every key of the YAML, dotted; the command line wins")
    for key in (*_FIRST, *(k for k in keys if k not in _FIRST)):
        if key in skip:
            continue
        group = main_group if key in _FIRST else others
        names = [f"--{key}", *(f"--{short}" for short, full in _TOP_LEVEL.items() if full == key)]
        group.add_argument(
            *names,
            dest=f"setting:{key}",
            nargs="*",
            metavar="V",
            default=argparse.SUPPRESS,
            help=_help(keys[key]),
        )


def settings_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings given on the command line, dotted keys to values."""
    keys = known_keys()
    flags: dict[str, Any] = {}
    for name, words in vars(args).items():
        if name.startswith("setting:"):
            key = name.removeprefix("setting:")
            values = [from_flag(word, keys[key]) for word in words]
            flags[key] = values[0] if len(values) == 1 else values
    return flags


def open_run(
    args: argparse.Namespace, context: Context, *, mode: Literal["train", "test"], **flags: Any
) -> tuple[Host, Settings]:
    """Finds the host and resolves the settings of a run.

    Args:
        args: Parsed arguments of :func:`add_settings_arguments`.
        context: Of the command.
        mode: ``"train"`` or ``"test"``: which of the host's default files applies.
        flags: Settings from the command's own flags; ``None`` means not given.

    Raises:
        UserError: If no host is found or a setting is wrong.
    """
    host = open_host(locate(args.host, script=context.script))
    yaml_path = args.detector_config or _default_yaml(host)
    given = {key: value for key, value in flags.items() if value is not None}
    settings = resolve(
        flags={**settings_flags(args), **given},
        yaml_path=yaml_path,
        host_defaults=host.default_settings(mode),
        host_root=host.root,
    )
    return host, settings


def _default_yaml(host: Host) -> Path:
    path = Path(host.root) / "training" / "config" / "detector" / "effort_finetune.yaml"
    if not path.is_file():
        raise UserError(
            "no effort_finetune.yaml in the host",
            got=host.root,
            expected="training/config/detector/effort_finetune.yaml",
            next_step=f"effort-finetune install {host.root}, or name a file with --detector_config",
        )
    return path


def _help(key: Key) -> str:
    return key.help.replace("%", "%%")
