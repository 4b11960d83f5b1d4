"""Runs of several processes without a launcher: this process forked, each with what torchrun would set."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def several(size: int, work: Callable[[int], Any], *, timeout: float = 300.0) -> list[int | None]:
    """Calls ``work(rank)`` in ``size`` processes and returns their exit codes: 1 where it raised."""
    port, forks = free_port(), multiprocessing.get_context("fork")
    started = [forks.Process(target=_one, args=(rank, size, port, work)) for rank in range(size)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
        process.join()
    return codes


def _one(rank: int, size: int, port: int, work: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)  # the threads of the parent are not in a fork
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({k: str(v) for k, v in place.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    work(rank)
