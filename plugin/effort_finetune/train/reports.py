"""What a run says while it goes on: its log, its curves, its progress bar. None of them can end it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from effort_finetune.core import progress
from effort_finetune.core.device import describe_memory, memory_report, used_memory
from effort_finetune.train.loop import Record
from effort_finetune.train.optim import in_words
from effort_finetune.train.selection import Measured, Selector
from effort_finetune.train.trackers import Trackers

_SHOWN = frozenset({"loss", "auc", "eer", "acc", "ap", "video_auc", "video_eer", "video_acc"})


class Reports:
    """Says what an engine does.

    Args:
        logger: The run's log; ``None`` takes the package's.
        board: Where curves go; ``None`` writes none.
        device: Whose memory is shown.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        board: Trackers | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.logger = logger or logging.getLogger(__name__)
        self.board = board
        self._device = device or torch.device("cpu")
        self._bar: tqdm | None = None
        self._said: set[str] = set()

    @contextmanager
    def bar(self, *, total: int, done: int = 0) -> Iterator[None]:
        """Shows a progress bar of ``total`` batches within the context."""
        with progress.bar(total=total, initial=done, desc="fine-tuning", unit="batch") as self._bar:
            try:
                yield
            finally:
                self._bar = None

    def say(self, text: str) -> None:
        """Writes a line to the log."""
        self.logger.info("%s", text)

    def warn(self, text: str) -> None:
        """Writes a warning to the log."""
        self.logger.warning("%s", text)

    def findings(self, found: Sequence[Mapping[str, str]]) -> None:
        """Warns of what the guards see, once a run each."""
        for finding in found:
            if finding["guard"] not in self._said:
                self._said.add(finding["guard"])
                self.warn(f"{finding['guard']}: {finding['says']}; next: {finding['next']}")

    def step(self, epoch: int, batches: int, loss: float) -> None:
        """Moves the bar after a step of some batches."""
        if self._bar is not None:
            memory = f"{used_memory(self._device) or 0:.2f}G"
            self._bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", memory=memory, refresh=False)
            self._bar.update(batches)

    def epoch_begins(self, epoch: int, number: int, epochs: int, rates: Mapping[str, float]) -> None:
        """Says that an epoch begins, the ``number``-th of ``epochs``."""
        self.logger.info("epoch %d (%d of %d), learning rate %s", epoch, number, epochs, in_words(rates))

    def record(self, record: Record, *, step: int, owed: int) -> None:
        """Reports on the batches since the last report.

        Args:
            record: Their means.
            step: Batches of the run so far.
            owed: Batches of the run that are left.
        """
        losses = ", ".join(f"{name} {value:.4f}" for name, value in record.loss.items())
        self.logger.info(
            "epoch %d, batch %d of %d: loss %s; lr %s, gradient norm %.3g, %.1f frames/s, %s left to train; "
            "memory %s",
            *(record.epoch, record.batch, record.batches, losses, in_words(record.rates), record.grad_norm),
            *(record.samples_per_second, tqdm.format_interval(owed * record.seconds_per_batch)),
            describe_memory(self._device),
        )
        if self.board is not None:
            self.board.record(record, step)
            self.board.memory(memory_report(self._device), step)

    def measured(
        self,
        epoch: int | str,
        selector: Selector,
        measured: Measured,
        *,
        step: int,
        entry: Mapping[str, Any] | None = None,
    ) -> None:
        """Reports what a validation found.

        Args:
            epoch: Its number, or ``start``.
            selector: What chooses the checkpoint.
            measured: The numbers.
            step: Batches of the run so far.
            entry: The epoch's entry in the history; ``None`` before the first one.
        """
        where = epoch if isinstance(epoch, str) else f"epoch {epoch}"
        split = "test" if selector.select_on == "test" else "val"
        for name, numbers in measured.numbers.items():
            self.curves(split, name, numbers, step)
            shown = ", ".join(f"{k} {v:.4f}" for k, v in numbers.items() if k in _SHOWN and v is not None)
            self.logger.info("%s, %s of %s: %s", where, split, name, shown)
        value = measured.mean
        self.logger.info(
            "%s: %s %s%s; memory %s",
            where,
            selector.metric,
            "not measured" if value is None else f"{value:.4f}",
            ", selected" if entry is not None and entry["selected"] else "",
            describe_memory(self._device),
        )

    def curves(self, split: str, dataset: str, numbers: Mapping[str, float | None], step: int) -> None:
        """Writes a dataset's numbers to the trackers."""
        if self.board is not None:
            self.board.metrics(split, dataset, numbers, step)
