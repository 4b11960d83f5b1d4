"""Decides which host a command works in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.host.recognise import is_host, recognise

ENVIRONMENT_VARIABLE = "DEEPFAKEBENCH_ROOT"


def locate(
    explicit: Path | str | None = None,
    *,
    script: Path | str | None = None,
    cwd: Path | str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Path:
    """Returns the root of the host to work in: the folder that holds ``training/``.

    The first that is given wins: ``--host``, ``$DEEPFAKEBENCH_ROOT``, the tree the running script stands
    in, an ancestor of the working directory, the embedded host. The two that a user names must be hosts;
    the others are searched.

    Args:
        explicit: The value of ``--host``.
        script: The file that was started, e.g. ``DeepfakeBench/training/finetune.py``.
        cwd: The working directory; the process's own by default.
        environ: The environment.

    Raises:
        UserError: If a named folder is no host, or none is found at all.
    """
    if explicit is not None:
        return _named(Path(explicit), "--host")
    if environ.get(ENVIRONMENT_VARIABLE):
        return _named(Path(environ[ENVIRONMENT_VARIABLE]), f"${ENVIRONMENT_VARIABLE}")
    working = Path(cwd) if cwd is not None else Path.cwd()
    found = (_around(script) if script is not None else None) or _enclosing(working.resolve())
    if found:
        return found
    embedded = resources.embedded_host()
    if embedded is None:
        raise UserError(
            "no DeepfakeBench found",
            got=f"none above {working}",
            expected="a checkout of DeepfakeBench",
            next_step=f"pass --host PATH or set {ENVIRONMENT_VARIABLE}",
        )
    return embedded


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
    root = path.expanduser().resolve()
    try:
        recognise(root)
    except UserError as error:
        raise UserError(
            f"{what}: {error.what}", got=error.got, expected=error.expected, next_step=error.next_step
        ) from error
    return root


def _enclosing(start: Path) -> Path | None:
    folders: Iterable[Path] = (start, *start.parents)
    return next((folder for folder in folders if is_host(folder)), None)
