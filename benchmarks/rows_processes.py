"""The row about several processes: two with a thread each against one with two threads."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from argparse import Namespace
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from timing import interleaved, row, skipped
from towers import dense

from effort_finetune.config import resolve
from effort_finetune.core.launch import Launch
from effort_finetune.core.precision import resolve_precision
from effort_finetune.core.ranks import joined
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.optim import build_optimizer

WHAT = "two processes of one thread, times as fast as one of two threads"
SIZE, STEPS = 2, 2


def two_processes(options: Namespace) -> Iterator[dict[str, Any]]:
    """Training steps of the residuals in float32, gradients added up with gloo; loading left out."""
    if not sys.platform.startswith("linux"):
        yield skipped(WHAT, "the processes are forked, which is safe on Linux alone")
        return
    # Forked before this process has threads of its own.
    batches = [_batch(options.batch, seed) for seed in range(STEPS)]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    forks = multiprocessing.get_context("fork")
    pipes = [forks.Pipe() for _ in range(SIZE)]
    workers = [
        forks.Process(target=_serve, args=(rank, port, batches, options.layers, pipes[rank][1]), daemon=True)
        for rank in range(SIZE)
    ]
    for worker in workers:
        worker.start()
    try:
        before, loop = torch.get_num_threads(), _loop(options.layers)
        torch.set_num_threads(SIZE)

        def together() -> None:
            for here, _ in pipes:
                here.send("go")
            for here, _ in pipes:
                here.recv()

        measured = interleaved(
            {"one_process": lambda: loop.run_epoch(batches, EpochProgress(0)), "two_processes": together},
            repeats=options.repeats,
        )
        torch.set_num_threads(before)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    ratio = measured["one_process"]["median_s"] / measured["two_processes"]["median_s"]
    yield row(
        WHAT,
        ratio,
        target=">= 0.9",
        met=ratio >= 0.9,
        measured=measured,
        setup=f"{STEPS} steps of {options.batch} frames, {options.layers} blocks of ViT-L/14, float32, gloo",
    )


def _serve(rank: int, port: int, batches: list[dict[str, Any]], layers: int, pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with joined(Launch(rank, SIZE, rank, SIZE)):
        loop = _loop(layers)
        own = [{name: value[rank::SIZE] for name, value in batch.items()} for batch in batches]
        while pipe.recv() == "go":
            loop.run_epoch(own, EpochProgress(0))
            pipe.send("done")


def _batch(frames: int, seed: int) -> dict[str, Any]:
    image = torch.randn(frames, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    return {"image": image, "label": torch.arange(frames) % 2, "index": torch.arange(frames)}


def _loop(layers: int) -> TrainingLoop:
    settings = resolve(flags={"precision": "float32"}, yaml_path=None, host_defaults={})
    torch.manual_seed(0)
    model = EffortFinetuneDetector(settings, tower=dense(layers))
    device = torch.device("cpu")
    return TrainingLoop(model, build_optimizer(model, settings), resolve_precision("float32", device), device)
