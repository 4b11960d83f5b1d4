"""Loss, rate and metric curves for TensorBoard, under the same tags whatever drives the run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from effort_finetune.train.loop import Record

logger = logging.getLogger("effort_finetune.train")


class RunBoard:
    """Event file of a run; tags are ``train/<loss term>`` and ``<split>/<dataset>/<metric>``.

    A file that cannot be written costs the curves, not the run: the first failure is said, no other.

    Args:
        folder: The run folder.
        first_step: Step at which a resumed run goes on: points from there on, left by a killed
            process, are hidden. ``None`` hides nothing.
    """

    def __init__(self, folder: Path, *, first_step: int | None = None) -> None:
        self._writer: SummaryWriter | None = None
        with self._never_fatal():
            self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def record(self, record: Record, step: int) -> None:
        """Writes a training record at ``step``, counted in batches of the run."""
        numbers = {
            **record.loss,
            "lr": record.lr,
            "grad_norm": record.grad_norm,
            "samples_per_second": record.samples_per_second,
        }
        self._write({f"train/{name}": value for name, value in numbers.items()}, step)

    def metrics(self, split: str, dataset: str, values: Mapping[str, float | None], step: int) -> None:
        """Writes what could be computed of a dataset's metrics at ``step``."""
        self._write({f"{split}/{dataset}/{name}": v for name, v in values.items() if v is not None}, step)

    def close(self) -> None:
        """Ends the event file; a host's script closes what its trainer wrote by this name."""
        writer, self._writer = self._writer, None
        with self._never_fatal():
            if writer is not None:
                writer.close()

    def _write(self, values: Mapping[str, float], step: int) -> None:
        with self._never_fatal():
            for tag, value in values.items():
                if self._writer is not None:
                    self._writer.add_scalar(tag, value, step)

    @contextlib.contextmanager
    def _never_fatal(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the writer's thread hands on whatever it met
            self._writer = None
            logger.warning("no more TensorBoard curves: %s: %s", type(error).__name__, error)

    def __enter__(self) -> RunBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
