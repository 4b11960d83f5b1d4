"""The curves of a run, under the same tags whatever drives it and wherever they go.

Tags are ``train/<loss term>``, ``train/lr[_<kind>]``, ``train/grad_norm``, ``train/samples_per_second`` and
``<split>/<dataset>/<metric>``; the axis is batches of the run. At the end every tracker gets the settings
with the last value of each measured curve: a table of hyperparameters.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from effort_finetune.core.errors import UserError
from effort_finetune.train.loop import Record

if TYPE_CHECKING:
    from effort_finetune.config import Settings

logger = logging.getLogger("effort_finetune.train")


class Tracker(Protocol):
    """Where curves go. Whatever it raises costs its own curves and nothing else."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Takes a point of each curve."""

    def close(self, last: Mapping[str, float]) -> None:
        """Ends; ``last`` holds the last value of each curve of a split."""


Opener = Callable[[Path, Mapping[str, str], "int | None"], Tracker]


def _tensorboard(folder: Path, settings: Mapping[str, str], first_step: int | None) -> Tracker:
    from effort_finetune.train.tensorboard import TensorBoard

    return TensorBoard(folder, settings, first_step)


def _csv(folder: Path, settings: Mapping[str, str], first_step: int | None) -> Tracker:
    from effort_finetune.train.curves_csv import CsvFiles

    return CsvFiles(folder, settings, first_step)


def _wandb(folder: Path, settings: Mapping[str, str], first_step: int | None) -> Tracker:
    from effort_finetune.train.wandb_run import WandbRun

    return WandbRun(folder, settings, first_step)


def _mlflow(folder: Path, settings: Mapping[str, str], first_step: int | None) -> Tracker:
    from effort_finetune.train.mlflow_run import MlflowRun

    return MlflowRun(folder, settings, first_step)


@dataclass(frozen=True)
class Kind:
    """A tracker that can be asked for: its name for people, how it is opened, the package it needs."""

    title: str
    opened: Opener
    package: str | None = None


TRACKERS: Mapping[str, Kind] = {
    "tensorboard": Kind("TensorBoard", _tensorboard),
    "csv": Kind("CSV", _csv),
    "wandb": Kind("Weights & Biases", _wandb, "wandb"),
    "mlflow": Kind("MLflow", _mlflow, "mlflow"),
}


#: What they leave in a run folder, beside TensorBoard's event files and W&B's own folder.
TRACKER_FILES = ("curves.csv", "hyperparameters.csv", "wandb_run_id.txt", "mlflow_run_id.txt", "mlflow.db")


def require_trackers(settings: Settings) -> None:
    """Refuses trackers whose package is not installed, before anything is written.

    Raises:
        UserError: If one is missing.
    """
    for name in settings.tracker:
        package = TRACKERS[name].package
        if package is not None and find_spec(package) is None:
            raise UserError(
                f"tracker {name}",
                got=f"no package {package} here",
                expected="it, or tracker without it",
                next_step="pip install 'effort-finetune[trackers]'",
            )


class Trackers:
    """Every tracker that the settings ask for.

    Curves that cannot be written cost the curves, not the run: the first failure of a tracker is said, and it
    gets no more.

    Args:
        folder: The run folder.
        settings: The run's settings.
        first_step: Step at which a resumed run goes on; ``None`` where one begins.
    """

    def __init__(self, folder: Path, settings: Settings, *, first_step: int | None = None) -> None:
        self._open: dict[str, Tracker] = {}
        self._last: dict[str, float] = {}
        flat = dict(_flat(settings.to_dict()))
        for name in dict.fromkeys(settings.tracker):
            with self._never_fatal(name):
                self._open[name] = TRACKERS[name].opened(folder, flat, first_step)

    def record(self, record: Record, step: int) -> None:
        """Writes a training record at ``step``, counted in batches of the run."""
        numbers = {
            **record.loss,
            "lr": record.lr,
            **{f"lr_{kind}": rate for kind, rate in record.rates.items()},
            "grad_norm": record.grad_norm,
            "samples_per_second": record.samples_per_second,
        }
        self._write({f"train/{name}": value for name, value in numbers.items()}, step)

    def metrics(self, split: str, dataset: str, values: Mapping[str, float | None], step: int) -> None:
        """Writes what could be computed of a dataset's metrics at ``step``."""
        known = {f"{split}/{dataset}/{name}": v for name, v in values.items() if v is not None}
        self._last.update(known)
        self._write(known, step)

    def memory(self, report: Mapping[str, float | None], step: int) -> None:
        """Writes what is known of the memory of the device and of the process, in GiB, at ``step``."""
        self._write({f"memory/{name}": value for name, value in report.items() if value is not None}, step)

    def close(self) -> None:
        """Ends them all; a host's script closes what its trainer wrote by this name."""
        trackers, self._open = self._open, {}
        for name, tracker in trackers.items():
            with self._never_fatal(name):
                tracker.close(self._last)

    def _write(self, values: Mapping[str, float], step: int) -> None:
        for name, tracker in list(self._open.items()):
            with self._never_fatal(name):
                tracker.scalars(values, step)

    @contextlib.contextmanager
    def _never_fatal(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # threads, servers and disks hand on whatever they met
            self._open.pop(name, None)
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            logger.warning("no more %s curves: %s", TRACKERS[name].title, said)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
