"""Batches: a seeded order that does not depend on the number of workers, missing frames listed and not
replaced."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler

from effort_finetune.core import interrupt, ranks
from effort_finetune.core.seeding import generator, worker_init
from effort_finetune.data.epoch_order import Unit
from effort_finetune.data.frames import FrameDataset, Missing
from effort_finetune.data.hard_examples import HardExamples
from effort_finetune.data.worker_limits import PREFETCH, affordable_workers
from effort_finetune.data.workers import PatientLoader

Batch = dict[str, Any]
#: Environment variable that chooses how workers start: ``fork``, ``forkserver`` or ``spawn`` (the rule on a
#: Mac and on Windows); without it, the platform's own. The batches are the same under all three.
START_METHOD = "EFFORT_FINETUNE_START_METHOD"


class EpochSampler(Sampler[int]):
    """The order of one epoch, drawn from the seed and the epoch's number.

    Each pass is one epoch further; :meth:`set_epoch` goes to any of them, which is all that resuming a run
    needs.

    Args:
        dataset: Told the epoch's number, so that its augmentation draws anew.
        seed: The run's seed.
        order: ``sequential`` or ``shuffle``.
        units: How many frames of what an epoch takes; ``None``: every frame once.
        hard: Which frames are taken again for their loss; ``None``: none.
    """

    def __init__(
        self,
        dataset: FrameDataset,
        *,
        seed: int,
        order: Literal["sequential", "shuffle"] = "shuffle",
        units: Sequence[Unit] | None = None,
        hard: HardExamples | None = None,
    ) -> None:
        self.dataset, self.seed, self.order = dataset, seed, order
        self.units, self.hard = units, hard
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass the one of this epoch (from 0)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset) if self.units is None else sum(unit.drawn for unit in self.units)

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        self.dataset.set_epoch(self.seed, epoch)
        draws = generator(self.seed, "order", epoch)
        order = torch.arange(len(self.dataset))
        if self.units is not None:
            order = torch.cat([unit.take(draws) for unit in self.units])
        if self.order == "shuffle":
            order = order[torch.randperm(len(order), generator=draws)]
        if self.hard is not None:
            order = self.hard.mixed_in(order, draws)
        yield from order.tolist()


class RankBatches(BatchSampler):
    """One process's part of each batch: frames ``rank, rank + size, ...`` of it.

    Batches are those of one process, whatever the number of them: their order, what is drawn for a frame and
    how many steps there are do not depend on it. Parts differ by one frame at most; that of a short last
    batch may be empty.
    """

    def __iter__(self) -> Iterator[list[int]]:
        ours = ranks.current()
        for batch in super().__iter__():
            yield batch[ours.rank :: ours.size]


def epoch_sampler(loader: Any) -> Any:
    """Returns what draws the order of a loader's epochs, a host's loader included; ``None`` without one."""
    batches = getattr(loader, "batch_sampler", None)
    return getattr(loader, "sampler", None) if batches is None else getattr(batches, "sampler", None)


def collate(items: Sequence[dict[str, Any] | Missing]) -> Batch:
    """Stacks the readable frames and lists the others.

    Returns:
        ``image`` float32 ``[B, 3, H, W]``, ``label`` and ``index`` int64 ``[B]``, ``landmark`` and ``mask``
        None (a host's loops read the keys), ``missing`` int64 ``[M]``: rows that could not be read. B + M
        is the number of items; B may be 0, then ``image`` is ``[0, 3, 0, 0]``.
    """
    present = [item for item in items if not isinstance(item, Missing)]
    images = [item["image"] for item in present]
    return {
        "image": torch.stack(images) if images else torch.empty(0, 3, 0, 0),
        "label": torch.tensor([item["label"] for item in present], dtype=torch.int64),
        "index": torch.tensor([item["index"] for item in present], dtype=torch.int64),
        "landmark": None,
        "mask": None,
        "missing": torch.tensor([i.index for i in items if isinstance(i, Missing)], dtype=torch.int64),
    }


def _frame_bytes(dataset: FrameDataset) -> int:
    return 3 * dataset.resolution**2 * torch.float32.itemsize


def _start_worker(worker_id: int) -> None:
    interrupt.ignore_in_worker()
    worker_init(worker_id)


def make_loader(
    dataset: FrameDataset,
    *,
    batch_size: int,
    workers: int,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    sampler: Sampler[int] | None = None,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """A loader over the frames; see :func:`collate` for the batch.

    Without a sampler of one's own, order and augmentation are a function of seed and epoch alone: the same
    with 0 or 8 workers. ``loader.sampler.set_epoch(n)`` chooses the epoch; every pass goes one further by
    itself.

    Args:
        dataset: Frames of a split.
        batch_size: Frames in a batch.
        workers: Loader processes; 0 loads in this one. Fewer are started, with a warning, where shared
            memory or open files would not do.
        shuffle: A new order each epoch.
        seed: The run's seed.
        drop_last: Leave out an incomplete last batch; refused by scoring, which has to see every frame.
        sampler: Any other order than these two.
        pin_memory: Page-locked batches, worth it on CUDA alone.

    Raises:
        UserError: If more workers are asked for than this machine's cores can feed.
    """
    if sampler is None:
        sampler = EpochSampler(dataset, seed=seed, order="shuffle" if shuffle else "sequential")
    bytes_per_batch = min(batch_size, len(dataset)) * _frame_bytes(dataset)
    workers = affordable_workers(min(workers, math.ceil(len(dataset) / batch_size)), bytes_per_batch)
    parallel: dict[str, Any] = {}
    if workers:
        parallel = {"persistent_workers": True, "prefetch_factor": PREFETCH}
        parallel["multiprocessing_context"] = os.environ.get(START_METHOD)
    cut: dict[str, Any] = {"batch_size": batch_size, "sampler": sampler, "drop_last": drop_last}
    if ranks.current().size > 1:
        cut = {"batch_sampler": RankBatches(sampler, batch_size, drop_last)}
    return PatientLoader(
        dataset,
        num_workers=workers,
        collate_fn=getattr(dataset, "collate", collate),  # a host's own
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=generator(seed, "workers"),
        **cut,
        **parallel,
    )
