"""Errors a user can act on, each one line long, and the exit codes they lead to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from effort_finetune.core.escaping import LINE_LIMIT, visible

EXIT_USER_ERROR = 2
EXIT_RUN_FAILURE = 1


class UserError(Exception):
    """Something the user asked for cannot be done; shown as one line, exit code 2.

    Args:
        what: The thing that is wrong, in a few words, e.g. ``"--train_dataset"``.
        got: What was found. ``None`` leaves the clause out.
        expected: What would have been right. ``None`` leaves the clause out.
        next_step: The command or edit that mends it. ``None`` leaves the clause out.
    """

    #: Read by a host's own commands, which end with it without importing the plugin.
    exit_code = EXIT_USER_ERROR

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        next_step: str | None = None,
    ) -> None:
        self.what, self.got, self.expected, self.next_step = what, got, expected, next_step
        super().__init__(what)

    def __str__(self) -> str:
        clauses = [self.what]
        if self.got is not None:
            clauses.append(f"got {self.got}")
        if self.expected is not None:
            clauses.append(f"expected {self.expected}")
        if self.next_step is not None:
            clauses.append(f"next: {self.next_step}")
        return visible(" ".join("; ".join(map(str, clauses)).split()), limit=LINE_LIMIT)


class UserErrors(UserError):
    """Several user errors found in one pass, so that all can be mended at once.

    Args:
        errors: The errors, at least one, each shown on a line of its own.
    """

    def __init__(self, errors: Iterable[UserError]) -> None:
        self.errors = tuple(errors)
        if not self.errors:
            raise ValueError("UserErrors needs at least one error")
        super().__init__(self.errors[0].what)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class RunFailure(Exception):
    """A run that had started could not finish; raised after what there is was saved (exit code 1)."""

    exit_code = EXIT_RUN_FAILURE


def suggest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """Returns up to ``n`` of ``choices`` that look like ``name``, nearest first, ignoring case."""
    by_lower: dict[str, str] = {}
    for choice in choices:
        by_lower.setdefault(choice.lower(), choice)
    return [by_lower[m] for m in difflib.get_close_matches(name.lower(), by_lower, n=n, cutoff=0.5)]


def did_you_mean(name: str, choices: Iterable[str]) -> str | None:
    """Returns ``"did you mean 'a' or 'b'?"`` for near names, or ``None`` when nothing is near."""
    near = suggest(name, choices)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else None
