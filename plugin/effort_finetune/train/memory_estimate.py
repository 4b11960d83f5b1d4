"""What a step will need of the device's memory, found by making one of one frame and one of three."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from effort_finetune.core import seeding
from effort_finetune.core.device import GIB, is_out_of_memory, release_memory, used_memory
from effort_finetune.core.free_memory import free_memory
from effort_finetune.train.loop import TrainingLoop

#: Frames of the two steps that are tried.
_FEW, _MORE = 1, 3
#: Of what is free, what ``micro_batch: auto`` takes: the rest is for what nobody counts.
_SHARE = 0.8


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process on its device.

    Attributes:
        held: What the process has now: weights, libraries.
        fixed: What a step adds whatever its size: gradients, and the optimiser's moments.
        frame: What each frame of a piece adds.
        free: What the process could still get when this was found; ``None`` where the system does not tell.
    """

    held: int
    fixed: int
    frame: int
    free: int | None

    def total(self, frames: int) -> int:
        """Returns the largest use of pieces of so many frames."""
        return self.held + self.fixed + self.frame * frames

    def most_frames(self, processes: int) -> int | None:
        """Returns the largest piece that so many processes can take at once; ``None``: nobody knows."""
        if self.free is None:
            return None
        room = self.free * _SHARE / processes - self.fixed
        return max(1, int(room // max(self.frame, 1)))

    def to_dict(self, frames: int) -> dict[str, Any]:
        """Returns it for results, in bytes."""
        return {**asdict(self), "frames": frames, "total": self.total(frames)}

    def line(self, frames: int) -> str:
        """Returns what the log says of it."""
        free = "" if self.free is None else f"; {self.free / GIB:.2f} GiB are free"
        return (
            f"memory: about {self.total(frames) / GIB:.2f} GiB with {frames} frames at once: "
            f"{self.held / GIB:.2f} held now, {self.fixed / GIB:.2f} for any step, "
            f"{self.frame / GIB:.3f} for each frame{free}"
        )


def estimate_memory(loop: TrainingLoop, shape: Sequence[int]) -> MemoryEstimate | None:
    """Finds what a step needs; no weight, generator or gradient is another one afterwards.

    Args:
        loop: Of a model that is on its device, before its first step.
        shape: Of a frame as the model gets it.

    Returns:
        The estimate; ``None`` where not even three frames fit.
    """
    before = seeding.plain_state(seeding.capture())  # LoRA's dropout draws
    try:
        few, more = (_peak(loop, shape, frames) for frames in (_FEW, _MORE))
    finally:
        seeding.restore_state(before)
    if few is None or more is None:
        return None
    frame = max(0, (more - few) // (_MORE - _FEW))
    trained = sum(p.numel() * p.element_size() for p in loop.parameters)
    states = {"Adam": 2, "AdamW": 2, "SGD": 1, "SAM": 2}.get(type(loop.optimizer).__name__, 2)
    made = sum(t.numel() * t.element_size() for s in loop.optimizer.state.values() for t in _tensors(s))
    moments = max(0, states * trained - made)
    free = free_memory(loop.device)
    return MemoryEstimate(
        int((used_memory(loop.device) or 0) * GIB),
        few - frame * _FEW + moments,
        frame,
        None if free == float("inf") else int(free),
    )


def _tensors(state: dict[str, Any]) -> list[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)]


def _peak(loop: TrainingLoop, shape: Sequence[int], frames: int) -> int | None:
    """Returns the largest number of bytes that live at once in a step of some frames."""
    batch = {
        "image": torch.zeros(frames, *shape),
        "label": torch.arange(frames) % 2,
        "index": torch.arange(frames),
    }
    was_training = loop.model.training
    loop.model.train()
    try:
        with _Living([*loop.model.parameters(), *loop.model.buffers(), *_tensors(batch)]) as living:
            loop._backward(batch, 1.0)
        return living.peak
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        release_memory(loop.device)
        return None
    finally:
        loop.optimizer.zero_grad(set_to_none=True)
        loop.model.train(was_training)


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, while they live.

    Args:
        there: What was there before, of which operations return views.
    """

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._there = [value.untyped_storage() for value in there]
        self._known: dict[int, Any] = {id(storage): storage for storage in self._there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in (made,) if isinstance(made, Tensor) else tree_leaves(made):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if id(storage) not in self._known:
                    self._add(storage)
        return made

    def _add(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()

        def gone(_: Any) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)
