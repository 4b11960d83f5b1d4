"""Whether a host's script starts a run of Weights & Biases for which nobody has logged in here.

Without a key, and with no terminal to ask for one, ``wandb.init`` raises once everything else has started.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import netrc
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from effort_finetune.core.errors import UserError
from effort_finetune.guest.decided import decided

_NEEDS_NO_KEY = ("offline", "disabled", "dryrun")


def check_login(tree: ast.Module, config: Mapping[str, Any], place: str) -> None:
    """Refuses a file that starts such a run without a key.

    A call that a condition on the configuration rules out is none; a ``mode`` given in the call counts more
    than the environment, as in wandb itself.

    Args:
        tree: A file of the run.
        config: What the script will read: the detector's YAML with the host's own file on top.
        place: Name of the file, for the message.

    Raises:
        UserError: Such a line.
    """
    for call in _calls(tree.body, config):
        if ast.unparse(call.func) not in ("wandb.init", "wandb.login"):
            continue
        given = next((each.value for each in call.keywords if each.arg == "mode"), None)
        mode = os.environ.get("WANDB_MODE") or _stored_mode() if given is None else decided(given, config)
        if mode in _NEEDS_NO_KEY or _has_key() or sys.stdin.isatty():
            continue
        offline = (
            "export WANDB_MODE=offline"
            if given is None
            else f"set {ast.unparse(given)} to offline in training/config/train_config.yaml"
        )
        raise UserError(
            f"{place} line {call.lineno} starts a run of Weights & Biases",
            got="no key and no login here",
            next_step=f"{offline}, or wandb login",
        )


def _calls(body: list[ast.stmt], config: Mapping[str, Any]) -> Iterator[ast.Call]:
    """The calls of all statements and functions, but for what a ``try`` guards or a condition rules out."""
    for node in body:
        if isinstance(node, ast.If):
            holds = decided(node.test, config)
            yield from _calls([] if holds is False else node.body, config)
            yield from _calls([] if holds is True else node.orelse, config)
        elif isinstance(node, ast.Try):
            continue
        elif isinstance(inner := getattr(node, "body", None), list):
            yield from _calls(inner, config)
        else:
            yield from (each for each in ast.walk(node) if isinstance(each, ast.Call))


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(server) is not None
    return False


def _stored_mode() -> str | None:
    """What ``wandb offline`` and ``wandb disabled`` left for this folder or this user."""
    stored = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        stored.read([Path.home() / ".config" / "wandb" / "settings", Path("wandb", "settings")], "utf-8")
    return stored.get("default", "mode", fallback=None)
