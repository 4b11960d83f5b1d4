"""Decides which host a command works in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.host.recognise import hosts_below, is_host, recognise

ENVIRONMENT_VARIABLE = "DEEPFAKEBENCH_ROOT"


def locate(
    explicit: Path | str | None = None,
    *,
    script: Path | str | None = None,
    cwd: Path | str | None = None,
    environ: Mapping[str, str] = os.environ,
    embedded: bool = True,
) -> Path:
    """Returns the root of the host to work in: the folder that holds ``training/``.

    The first that is there wins: ``--host``, the tree that the running script stands in,
    ``$DEEPFAKEBENCH_ROOT``, the working directory or a folder above it, the one host a folder below it, the
    embedded host, which is said on stderr. A named folder may also be the one above its only host.

    Args:
        explicit: The value of ``--host``.
        script: The file that was started, e.g. ``DeepfakeBench/training/finetune.py``.
        cwd: The working directory; the process's own by default.
        environ: The environment.
        embedded: Whether the embedded host may be chosen; only for commands that need some data.

    Raises:
        UserError: If a named folder is no host, several lie below the working directory, or none is found.
    """
    if explicit is not None:
        return _named(Path(explicit), "--host")
    if script is not None and (around := _around(script)):
        return around
    if environ.get(ENVIRONMENT_VARIABLE):
        return _named(Path(environ[ENVIRONMENT_VARIABLE]), f"${ENVIRONMENT_VARIABLE}")
    working = (Path(cwd) if cwd is not None else Path.cwd()).resolve()
    found = _enclosing(working) or _only_one_below(working)
    if found:
        return found
    own = resources.embedded_host() if embedded else None
    if own is None:
        raise UserError(
            "no DeepfakeBench found",
            got=f"none at, above or a folder below {working}",
            expected="a checkout of DeepfakeBench",
            next_step=f"give its PATH, or set {ENVIRONMENT_VARIABLE}",
        )
    print(f"no DeepfakeBench here: working in the embedded host, {own}", file=sys.stderr)
    return own


def named_host(path: Path) -> Path:
    """Returns the root of the host at ``path``, or of the only one that lies a folder below it.

    Raises:
        UserError: If there is none, or there are several.
    """
    root = path.expanduser().resolve()
    if not is_host(root) and (below := _only_one_below(root)):
        return below
    recognise(root)
    return root


def enclosing_host(file: Path | str) -> Path:
    """Returns the root of the host that one of its own files stands in.

    A ``training/`` that is a link belongs to the host that holds the link, not to the disk it lies on.

    Raises:
        UserError: If there is no host around the file.
    """
    root = _around(file)
    if root is None:
        raise UserError(f"no DeepfakeBench around {file}", next_step="restore the checkout's files")
    return root


def _around(file: Path | str) -> Path | None:
    named = Path(os.path.abspath(file))
    root = _enclosing(named.parent) or _enclosing(named.resolve().parent)
    return root and root.resolve()


def _named(path: Path, what: str) -> Path:
    try:
        return named_host(path)
    except UserError as error:
        raise UserError(
            f"{what}: {error.what}", got=error.got, expected=error.expected, next_step=error.next_step
        ) from error


def _enclosing(start: Path) -> Path | None:
    folders: Iterable[Path] = (start, *start.parents)
    return next((folder for folder in folders if is_host(folder)), None)


def _only_one_below(folder: Path) -> Path | None:
    below = hosts_below(folder)
    if len(below) > 1:
        raise UserError(
            f"{len(below)} DeepfakeBench checkouts below {folder}",
            got=", ".join(path.name for path in below),
            expected="one",
            next_step="name one of them, or work inside it",
        )
    return below[0] if below else None
