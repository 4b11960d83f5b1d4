"""The server of the page: an address, and a clean end when it is asked to stop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from effort_finetune.core.interrupt import InterruptGuard


class _Server(uvicorn.Server):
    """Stops between two ticks; uvicorn's own handlers would end the process by the signal itself."""

    def __init__(self, config: uvicorn.Config, asked: InterruptGuard) -> None:
        super().__init__(config)
        self._asked = asked

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._asked.requested


def serve_until_asked(app: ASGIApp, listening: socket.socket) -> str | None:
    """Answers requests until Ctrl-C, SIGTERM or SIGHUP.

    Args:
        app: What answers.
        listening: A socket that listens.

    Returns:
        The name of the signal.
    """
    config = uvicorn.Config(
        app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        limit_concurrency=256, timeout_keep_alive=15, timeout_graceful_shutdown=3,
    )  # fmt: skip
    with InterruptGuard() as asked:
        _Server(config, asked).run(sockets=[listening])
        return asked.reason
