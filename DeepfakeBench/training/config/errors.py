"""How an error leaves the commands of the bench.

An exception that carries ``exit_code`` is for the user: its message is printed as one line and the command
ends with that code. Every other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

EXIT_USER_ERROR = 2
EXIT_RUN_FAILURE = 1


class SettingError(Exception):
    """A setting or flag cannot be used."""

    exit_code = EXIT_USER_ERROR


class RunFailure(Exception):
    """A run that had started cannot go on."""

    exit_code = EXIT_RUN_FAILURE


def _message(error: Exception) -> str:
    """Return the message; of an exception from a loader worker the last line, without class and traceback."""
    text = str(error).strip()
    if "Traceback (most recent call last)" not in text:
        return text
    return re.sub(r"^[\w.]+: ", "", text.splitlines()[-1])


def run_command(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a command and return its exit code, turning errors meant for the user into one line on stderr."""
    try:
        return command(arguments)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        for line in _message(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return code
