"""The processes of one run: which of them this is, and the few ways in which they talk.

What training changes is small, so its gradients are added up by one all-reduce a step, after accumulation, in
place of DistributedDataParallel: that divides by the number of processes, which is wrong where they hold
different numbers of frames, and waits for ever for a process that has none. All else goes through
:meth:`Ranks.exchange`, in the same order in every process, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from effort_finetune.core import interrupt
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.interrupt import Interrupted
from effort_finetune.core.launch import Launch

#: Longer than this nobody waits for a process that lives and says nothing: one that died is known at once.
PATIENCE = timedelta(hours=1)
#: What a process that failed waits for the first one to write the run's state: torchrun kills after 30 s.
_FAREWELL = timedelta(seconds=20)
_HEAD, _LENGTH = 4096, 8  # bytes of an exchange's first message, and of the length in it
_BUCKET = 2**24  # values of gradients that are added up at once
_FAILED = "a process failed"


class PeerFailure(RunFailure):
    """Another process of the run failed or is gone."""


class PeerGone(PeerFailure):
    """Another process of the run ended without a word."""


class Ranks:
    """This process among those of its run.

    Args:
        launch: Its place.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        leads: Whether it writes for all of them: the first one, or the one that took its place.
    """

    def __init__(self, launch: Launch | None = None) -> None:
        self.launch = launch or Launch()
        self.rank, self.size = self.launch.rank, self.launch.size
        self.leads = self.rank == 0
        self._over = False  # another process failed: nobody waits for this one's words

    def exchange(self, said: Any) -> list[Any]:
        """Tells every process something, and returns what each told, by rank.

        Args:
            said: What JSON holds.

        Raises:
            PeerFailure: If a process told that it failed, or is gone.
            Interrupted: If a process told that it was asked to stop.
        """
        if self.size == 1:
            return [said]
        told = self._gather(said)
        failed = [(rank, words[_FAILED]) for rank, words in enumerate(told) if _is_failure(words)]
        for rank, words in failed:
            self._over = True
            if words is None:
                raise Interrupted
            raise PeerFailure(f"process {rank} of {self.size}: {words}")
        return told

    def first(self, said: Any) -> Any:
        """Returns what the process of rank 0 says, in every process."""
        return self.exchange(said if self.rank == 0 else None)[0]

    def tell(self, error: BaseException) -> None:
        """Tells the others that this process cannot go on, where they next wait for it."""
        if self.size == 1 or self._over:
            return
        asked = isinstance(error, KeyboardInterrupt)
        words = None if asked else " ".join(str(error).split())[:2000] or type(error).__name__
        with contextlib.suppress(PeerGone):
            self._gather({_FAILED: words})

    def farewell(self) -> None:
        """Waits for the first process to end: it is saving what there is, and torchrun ends all with one."""
        if self.rank == 0 or self.size == 1:
            return
        with contextlib.suppress(RuntimeError):
            work = torch.distributed.irecv(torch.zeros(1), src=0)
            if work is not None:
                work.wait(_FAREWELL)

    def add_up(self, tensors: Iterable[Tensor], share: float) -> None:
        """Replaces tensors by their sum over the processes, this one's weighed by its share.

        Args:
            tensors: The same shapes in every process.
            share: Of this process; all of them together are 1.

        Raises:
            PeerGone: If a process is gone.
        """
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket]).mul_(share)
            self._all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def same_weights(self, model: nn.Module) -> None:
        """Gives every process the first one's weights and buffers, to the bit.

        Raises:
            PeerGone: If a process is gone.
        """
        if self.size == 1:
            return
        with self._others():
            for tensor in (*model.parameters(), *model.buffers()):
                value = tensor.detach().contiguous()
                torch.distributed.broadcast(value, src=0)
                tensor.detach().copy_(value)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Tells the others of whatever ends the block, and then waits for the first one to save."""
        try:
            yield
        except BaseException as error:
            if self.size > 1:
                self.tell(error)
                self.farewell()
            raise

    def _all_reduce(self, flat: Tensor) -> None:
        with self._others():
            work = torch.distributed.all_reduce(flat, async_op=True)
            if flat.is_cuda:  # NCCL does not notice that a process died, and blocks what a signal asks for
                _wait_patiently(work)
            else:
                work.wait()

    def _gather(self, said: Any) -> list[Any]:
        data = json.dumps(said).encode()
        head = torch.zeros(_HEAD, dtype=torch.uint8)
        start = len(data).to_bytes(_LENGTH, "big") + data[: _HEAD - _LENGTH]
        head[: len(start)] = torch.frombuffer(bytearray(start), dtype=torch.uint8)
        heads = [bytes(t.numpy().tobytes()) for t in self._all_gather(head)]
        lengths = [int.from_bytes(h[:_LENGTH], "big") for h in heads]
        texts = [h[_LENGTH : _LENGTH + n] for h, n in zip(heads, lengths, strict=True)]
        longest = max(lengths)
        if longest > _HEAD - _LENGTH:
            whole = torch.zeros(longest, dtype=torch.uint8)
            whole[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            wholes = self._all_gather(whole)
            texts = [t.numpy().tobytes()[:n] for t, n in zip(wholes, lengths, strict=True)]
        return [json.loads(text) for text in texts]

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._others():
            torch.distributed.all_gather(found, tensor)
        return found

    @contextmanager
    def _others(self) -> Iterator[None]:
        """Says in our words that a process is gone."""
        try:
            yield
        except RuntimeError as error:
            self._over = True
            text = " ".join(str(error).split())
            reason = "connection closed" if "closed by peer" in text else text[:160]
            raise PeerGone(
                f"another process of the run is gone ({reason}); its own last lines say why, where it had "
                "time to write them"
            ) from error


ALONE = Ranks()
_current = ALONE


def current() -> Ranks:
    """Returns the processes of the run that this process is in the middle of."""
    return _current


@contextmanager
def joined(launch: Launch) -> Iterator[Ranks]:
    """Meets the other processes of a run, for the block.

    Args:
        launch: Of :func:`effort_finetune.core.launch.read_launch`.

    Raises:
        RunFailure: If the others are not there.
    """
    global _current
    if launch.size == 1 or _current.size > 1:
        yield _current
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        torch.distributed.init_process_group(
            backend, rank=launch.rank, world_size=launch.size, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RunFailure(
            f"the {launch.size} processes of the run did not meet at {where} "
            f"({' '.join(str(error).split())[:200]}); next: look whether torchrun started all of them"
        ) from error
    _current = Ranks(launch)
    try:
        yield _current
    finally:
        _current = ALONE
        with contextlib.suppress(RuntimeError):
            torch.distributed.destroy_process_group()


def device_of(name: str, launch: Launch) -> str:
    """Returns the ``device`` setting of one of several processes: each GPU of a machine has one.

    Raises:
        UserError: If there are more processes than GPUs, or they cannot share what was asked for.
    """
    if launch.size == 1 or name == "cpu":
        return name
    if name == "mps" or (name == "auto" and torch.backends.mps.is_available()):
        raise UserError(
            "device",
            got=f"one Apple GPU for {launch.local_size} processes",
            expected="one process",
            next_step="start it without torchrun, or with --device cpu",
        )
    if name.startswith("cuda:") and launch.local_size > 1:
        raise UserError(
            "device",
            got=f"{name!r} for {launch.local_size} processes of this machine",
            expected="cuda: each process takes the GPU of its own number",
            next_step="--device cuda, and CUDA_VISIBLE_DEVICES to choose among them",
        )
    if name in ("auto", "cuda") and torch.cuda.is_available():
        if launch.local_rank >= torch.cuda.device_count():
            raise UserError(
                "torchrun",
                got=f"{launch.local_size} processes and {torch.cuda.device_count()} GPUs on this machine",
                expected="one process a GPU",
                next_step=f"--nproc_per_node {torch.cuda.device_count()}",
            )
        return f"cuda:{launch.local_rank}"
    return name


def _wait_patiently(work: Any) -> None:
    asked: float | None = None
    while not work.is_completed():
        if asked is None and interrupt.requested():
            asked = time.monotonic()
        if asked is not None and time.monotonic() - asked > 10:
            raise RuntimeError("the run was asked to stop, and the others do not answer")
        time.sleep(2e-4)
    work.wait()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Yields tensors of one type and device in groups of :data:`_BUCKET` values or fewer, or one."""
    bucket: list[Tensor] = []
    values = 0
    for tensor in tensors:
        fits = bucket and (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and not (fits and values + tensor.numel() <= _BUCKET):
            yield bucket
            bucket, values = [], 0
        bucket.append(tensor)
        values += tensor.numel()
    if bucket:
        yield bucket


def _is_failure(words: Any) -> bool:
    return isinstance(words, dict) and _FAILED in words
