"""The flags of a host's script in a run that is ours: the host's own, then one for every settings key."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from effort_finetune.config.aliases import key_of_flag
from effort_finetune.config.flag_words import from_flag
from effort_finetune.config.key_table import Key, known_keys
from effort_finetune.config.wording import alternatives, takes_list
from effort_finetune.core.errors import UserError, UserErrors, did_you_mean
from effort_finetune.guest.asked import Asked
from effort_finetune.guest.host_script import Option, options

#: The host's flags that mean something in a run of our detector. The value: how many words follow, as in
#: :attr:`~effort_finetune.guest.host_script.Option.takes`.
UNDERSTOOD = {
    "--detector_path": None,
    "--weights_path": None,
    "--no-save_ckpt": "0",
    "--no-save_feat": "0",
    "--ddp": "0",
    "--local_rank": None,
    "--local-rank": None,
    "--task_target": None,
    "--output_json": None,
    "--debug": "0",
}
#: Shown first by ``--help``.
_FIRST = ("pretrained_weights", "resume", "output_dir", "trainer", "nEpochs", "device")


@dataclass
class Given:
    """A command line, taken apart.

    Attributes:
        host: The host's flags with their words, by name without dashes.
        settings: Values of settings, by their names as typed.
        rest: The command line without the settings flags that the host's parser does not know.
    """

    host: dict[str, str | bool] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


def take_apart(argv: Sequence[str], known_to_host: Sequence[Option] | None = None) -> Given:
    """Takes a command line apart.

    Args:
        argv: The words after the script.
        known_to_host: For a run that the host's parser reads afterwards: what it knows stays in ``rest``
            and is no setting. ``None`` for a run that is ours alone.

    Raises:
        UserError: If a flag is unknown or its value cannot be read; in a run of the host's, what the host's
            parser complains of itself is left to it.
    """
    keys, given, errors = known_keys(), Given(), []
    theirs = {name for option in known_to_host or () for name in option.names}
    for flag, words in _groups(argv):
        name = flag.removeprefix("--")
        key = key_of_flag(name)
        typed = [flag, *words]
        if flag in theirs:
            given.rest += typed
        elif flag in UNDERSTOOD and known_to_host is None:
            given.host[flag.removeprefix("--").replace("-", "_")] = words[0] if words else True
        elif flag.startswith("--") and key in keys:
            try:
                given.settings[name] = _value(name, words, keys[key])
            except UserError as error:
                errors.append(error)
        elif known_to_host is None:
            near = did_you_mean(flag, [*UNDERSTOOD, *(f"--{name}" for name in keys)])
            errors.append(UserError("unknown argument", got=repr(flag), next_step=near or "--help lists all"))
        else:
            given.rest += typed
    if errors:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)
    return given


def help_text(asked: Asked) -> str:
    """Returns the script's own options, then ours."""
    parser = argparse.ArgumentParser(prog=asked.script.name, usage="%(prog)s [options]", add_help=False)
    theirs = parser.add_argument_group("options of the host's script")
    theirs.add_argument("-h", "--help", action="store_true", help="show this and stop")
    taken = {"-h", "--help"}
    for option in options(asked.script):
        if taken.isdisjoint(option.names):
            taken |= set(option.names)
            switch = {"action": "store_true"} if option.takes == "0" else {"metavar": "V"}
            text = str(option.arguments.get("help") or "").replace("%", "%%")
            theirs.add_argument(*option.names, help=text, **switch)  # type: ignore[arg-type]
    ours = parser.add_argument_group(
        "options of effort_finetune", "every key of effort_finetune.yaml, dotted; the command line wins"
    )
    if asked.mode == "test" and "--output_json" not in taken:
        ours.add_argument("--output_json", metavar="V", help="write results.json to this file, too")
    keys = known_keys()
    for key in (*_FIRST, *(key for key in keys if key not in _FIRST)):
        if f"--{key}" not in taken:
            ours.add_argument(f"--{key}", metavar="V", help=keys[key].help.replace("%", "%%"))
    return parser.format_help().rstrip()


def _groups(argv: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words that follow it, up to the next flag; a negative number is no flag."""
    flag = ""
    words: list[str] = []
    for word in argv:
        if re.match(r"--?[A-Za-z]", word):
            if flag or words:
                yield flag, words
            flag, equals, value = word.partition("=")
            words = [value] if equals else []
        else:
            words.append(word)
    if flag or words:
        yield flag, words


def _value(name: str, words: Sequence[str], key: Key) -> Any:
    if not words:
        if bool in alternatives(key.kind):
            return True  # a switch, as hosts have some of these keys
        if not takes_list(key.kind):
            raise UserError(f"--{name}", got="no value", expected="one")
    values = [from_flag(word, key) for word in words]
    return values[0] if len(values) == 1 else values
