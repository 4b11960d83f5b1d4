"""Loss, rate and metric curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from effort_finetune.train.loop import Record


class RunBoard:
    """Event file of a run; tags are ``train/<loss term>`` and ``<split>/<dataset>/<metric>``.

    Args:
        folder: The run folder.
        first_step: Step at which a resumed run goes on: points from there on, left by a killed
            process, are hidden. ``None`` hides nothing.
    """

    def __init__(self, folder: Path, *, first_step: int | None = None) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def record(self, record: Record, step: int) -> None:
        """Writes a training record at ``step``, counted in batches of the run."""
        for term, value in record.loss.items():
            self._writer.add_scalar(f"train/{term}", value, step)
        self._writer.add_scalar("train/lr", record.lr, step)
        self._writer.add_scalar("train/grad_norm", record.grad_norm, step)
        self._writer.add_scalar("train/samples_per_second", record.samples_per_second, step)

    def metrics(self, split: str, dataset: str, values: Mapping[str, float | None], step: int) -> None:
        """Writes what could be computed of a dataset's metrics at ``step``."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"{split}/{dataset}/{name}", value, step)

    def __enter__(self) -> RunBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
