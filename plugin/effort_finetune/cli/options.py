"""Flags that are settings: ``--nEpochs 3``, ``--optimizer.lr 0.001``, ``--train_dataset A B``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from effort_finetune.cli.context import Context
from effort_finetune.config import Settings, resolve
from effort_finetune.config.aliases import key_of_flag, renames_of
from effort_finetune.config.flag_words import from_flag
from effort_finetune.config.key_table import Key, known_keys
from effort_finetune.config.wording import describe, in_yaml, takes_list
from effort_finetune.host import locate, open_host
from effort_finetune.host.settings_files import preset, presets, settings_files

if TYPE_CHECKING:
    from effort_finetune.host import Host

# Shown first, under a heading of their own; the rest follows by subject.
_FIRST = (
    "train_dataset",
    "val_dataset",
    "test_dataset",
    "pretrained_weights",
    "resume",
    "output_dir",
    "nEpochs",
)


class _Layer(argparse.Action):
    """Collects settings files and presets in the order in which they are typed."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        paths = [preset(word) for word in values] if self.dest == "preset" else list(map(Path, values))
        namespace.layers = [*(namespace.layers or ()), *paths]
        if self.dest == "detector_config":
            namespace.own_config = True


class SettingFlag(argparse.Action):
    """Keeps the words of a setting under the name that was typed, which errors call it by."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        """Adds the flag's words; the same name again replaces them."""
        typed = getattr(namespace, "typed", {})
        namespace.typed = {**typed, option.removeprefix("--"): values}


def add_host_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--host`` and ``--detector_config``, which :func:`open_run` reads."""
    parser.set_defaults(layers=None, own_config=False)
    parser.add_argument(
        "--host", type=Path, help="DeepfakeBench checkout to work in (default: found by itself)"
    )
    parser.add_argument(
        "--detector_config",
        action=_Layer,
        nargs="+",
        metavar="YAML",
        help="settings files, the later ones win (default: the host's effort_finetune.yaml)",
    )


def add_settings_arguments(
    parser: argparse.ArgumentParser, *, command: str | None = None, skip: tuple[str, ...] = ()
) -> None:
    """Adds ``--host``, ``--detector_config``, ``--preset`` and one flag for every key of the settings.

    Every key is understood, since one line of flags may serve several commands; listed are those that
    the command reads.

    Args:
        parser: The command's parser.
        command: Its name, as in a key's ``read_by``; ``None`` lists all keys.
        skip: Keys the command sets by flags of its own.
    """
    add_host_arguments(parser)
    parser.add_argument(
        "--preset",
        action=_Layer,
        nargs="+",
        metavar="NAME",
        help=f"{', '.join(presets())}: settings files that ship, on top of those before them",
    )
    # argparse would list all seventy flags in the usage line.
    parser.usage = "%(prog)s [options]"
    keys = known_keys()
    groups = {"run": parser.add_argument_group("run")}
    for name in (*_FIRST, *(key for key in keys if key not in _FIRST)):
        if name in skip:
            continue
        key = keys[name]
        title = "run" if name in _FIRST else key.group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        listed = command is None or command in key.read_by
        groups[title].add_argument(
            *(f"--{flag}" for flag in (name, *renames_of(name))),
            action=SettingFlag,
            dest=f"setting:{name}",
            nargs="*",
            metavar="V",
            default=argparse.SUPPRESS,
            help=_help(key) if listed else argparse.SUPPRESS,
        )
    parser.formatter_class = _Help


class _Help(argparse.HelpFormatter):
    """One column of flags, one of meanings, and no list of words where one word is taken."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.dest.startswith("setting:"):
            return "V ..." if takes_list(known_keys()[action.dest.removeprefix("setting:")].kind) else "V"
        return super()._format_args(action, default_metavar)


def settings_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings given on the command line, names as typed to values."""
    keys = known_keys()
    flags: dict[str, Any] = {}
    for name, words in getattr(args, "typed", {}).items():
        values = [from_flag(word, keys[key_of_flag(name)]) for word in words]
        flags[name] = values[0] if len(values) == 1 else values
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
    given = {key: value for key, value in flags.items() if value is not None}
    given = {**settings_flags(args), **given}
    settings = resolve(
        flags=given,
        yaml_path=settings_files(
            host, given.get("model_name"), args.layers or (), own_config=args.own_config
        ),
        host_defaults=host.default_settings(mode),
        host_root=host.root,
    )
    return host, settings


def _help(key: Key) -> str:
    default = in_yaml(key.default) if key.default not in ("", {}) else "none"
    return f"{key.help} [{describe(key.kind, brief=True)}; default {default}]".replace("%", "%%")
