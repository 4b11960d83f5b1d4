"""``effort-finetune <command>``: finds the command, runs it, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import EXIT_USER_ERROR, UserError, UserErrors, did_you_mean
from effort_finetune.core.exit_code import exit_code
from effort_finetune.core.version import __version__

# Name -> module, imported only when chosen: `install` or `--help` should not wait for torch. With a dot it is
# the command of another entrance.
COMMANDS = {
    "finetune": ("finetune", "fine-tune an Effort checkpoint, or plain CLIP, on a dataset of the host"),
    "evaluate": ("evaluate", "measure a checkpoint on test datasets, as JSON and a table"),
    "predict": ("predict", "judge pictures and videos: real, fake or unsure, with reasons"),
    "serve": ("serve.serve_command", "open a page on this machine: drop files, see verdicts"),
    "compare": ("compare", "put the results of several runs side by side"),
    "why": ("why", "say why two results differ, each difference measured"),
    "leaderboard": ("leaderboard", "detectors x datasets x seeds in one table"),
    "calibrate": ("calibrate", "fit temperature, thresholds and an unsure band on val scores"),
    "import-scores": ("import_scores", "make results of the scores of any detector"),
    "export-scores": ("export_scores", "write the scores of a run as one CSV"),
    "report": ("report", "make an HTML report of results"),
    "inspect": ("inspect", "show what a checkpoint file holds"),
    "export": ("export", "write a checkpoint in another layout"),
    "hub": ("hub", "push a model to a model hub, or pull one"),
    "install": ("install", "add the plugin to a DeepfakeBench checkout"),
    "uninstall": ("uninstall", "take it out again"),
    "status": ("status", "show what is installed in a checkout"),
    "doctor": ("doctor", "check the machine, the host, the data and the weights"),
    "check-data": ("check_data", "check datasets: frames, videos, splits, labels"),
    "prepare": ("prepare", "crop faces, build the JSON index and the LMDB"),
    "settings": ("settings", "list every settings key with its default and meaning"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{self.prog}: {message}", next_step=f"{self.prog} --help")


def main(argv: Sequence[str] | None = None, *, script: str | None = None) -> int:
    """Runs one command.

    Args:
        argv: Command and arguments; ``sys.argv[1:]`` when left out.
        script: ``__file__`` of a host's script that calls, so that its host is found.

    Returns:
        The exit code: 0, 1 (a run failed after saving what there was), 2 (user error) or 130 (Ctrl-C
        before there was anything to save).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    return exit_code(lambda: _dispatch(arguments, script), debug=debug)


def run_command(arguments: Sequence[str], *, script: str | None = None) -> int:
    """Runs one command and lets its errors through, for commands made of commands.

    Raises:
        UserError: If the command is unknown or refuses what it is asked.
        RunFailure: If it could not finish.
    """
    name, *rest = arguments
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS) or "effort-finetune --help"
        raise UserError("unknown command", got=repr(name), next_step=near)
    place = COMMANDS[name][0]
    command: ModuleType = importlib.import_module(
        f"effort_finetune.{place if '.' in place else f'cli.{place}'}"
    )
    program = f"effort-finetune {name}" if script is None else Path(script).name
    parser = _Parser(prog=program, description=command.HELP, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    command.add_arguments(parser)
    args, unknown = parser.parse_known_args(rest)
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        raise UserErrors(_unknown(program, unknown, known))
    context = Context(Path(os.path.abspath(script)) if script else None, (program, *rest))
    return int(command.run(args, context))


def _unknown(program: str, words: Sequence[str], known: Sequence[str]) -> Iterator[UserError]:
    """One error for each flag that does not exist; its values, unknown as well, are not the news."""
    flags = [word.partition("=")[0] for word in words if re.match("-+[a-zA-Z]", word)]
    for word in flags or words:
        near = did_you_mean(word, known) or f"{program} --help"
        yield UserError(f"{program}: unknown argument", got=repr(word), next_step=near)


def _dispatch(arguments: Sequence[str], script: str | None) -> int:
    if arguments[:1] == ["--version"]:
        print(f"effort-finetune {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else EXIT_USER_ERROR
    return run_command(arguments, script=script)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: effort-finetune <command> [options]", "", *lines, "", "Each has --help."])
