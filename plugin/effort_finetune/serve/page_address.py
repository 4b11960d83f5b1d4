"""Where the page listens, decided and taken before anything slow begins."""

from __future__ import annotations

import os
import secrets
import socket

from effort_finetune.core.errors import UserError

TOKEN_VARIABLE = "EFFORT_FINETUNE_TOKEN"
SHORTEST_TOKEN = 16


def listen(address: str, port: int) -> socket.socket:
    """Opens the socket, so that a port in use is known at once.

    Args:
        address: A numeric address or a name of this machine.
        port: 0 takes any free one.

    Raises:
        UserError: If it cannot be had.
    """
    if not 0 <= port <= 65535:
        raise UserError("--port", got=port, expected="a number from 0 to 65535, 0 for any free one")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UserError("--listen", got=repr(address), expected="an address of this machine") from error
    opened = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(place)
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise UserError(
            f"--listen {address} --port {port}",
            got=error.strerror or str(error),
            expected="an address of this machine and a port that is free",
            next_step="--port 0 takes any free one",
        ) from error
    return opened


def chosen_token(asked: str | None, *, local: bool) -> str | None:
    """Returns the token that requests must bring: the user's, else a new one where others can reach the page.

    Raises:
        UserError: If the user's can be guessed.
    """
    given = asked if asked is not None else os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return None if local else secrets.token_urlsafe(24)
    if (
        len(given) < SHORTEST_TOKEN
        or not given.isascii()
        or not given.replace("-", "").replace("_", "").isalnum()
    ):
        raise UserError(
            "--token",
            got=f"{len(given)} characters",
            expected=f"at least {SHORTEST_TOKEN} letters, digits, - or _",
            next_step="leave it out: one is made where the page is not for this machine alone",
        )
    return given
