"""The state of a run and how it moves on, epoch by epoch; all of it is in ``ckpt_last.pth``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from effort_finetune.core.device import describe_memory
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.interrupt import Interrupted
from effort_finetune.core.progress import bar
from effort_finetune.evaluate.dataset_results import DatasetResult, DatasetResults
from effort_finetune.evaluate.evaluation import EvaluationFailure
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.early_stopping import EarlyStopping
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.loop import Record, TrainingLoop
from effort_finetune.train.optim import learning_rate
from effort_finetune.train.run_history import Processes
from effort_finetune.train.schedule import advance
from effort_finetune.train.selection import Selector, mean_of_known
from effort_finetune.train.tensorboard import RunBoard
from effort_finetune.weights import run_state as checkpoint

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.train.data import RunData
    from effort_finetune.train.run_files import RunPaths


@dataclass
class Session:
    """One fine-tuning run between setup and evaluation.

    Args:
        settings: Resolved settings.
        paths: Where it writes.
        model: The detector, on its device.
        optimizer: Over the trainable parameters.
        scheduler: Stepped once an epoch; ``None`` for a constant rate.
        loop: Makes the steps.
        data: Opened data.
        validate: Measures the model on the selection data.
        logger: The run's log.
        board: TensorBoard.
        processes: The record of the processes the run was made by.
        before_epoch: Called before each epoch.
    """

    settings: Settings
    paths: RunPaths
    model: EffortFinetuneDetector
    optimizer: Optimizer
    scheduler: LRScheduler | None
    loop: TrainingLoop
    data: RunData
    validate: Callable[[], DatasetResults]
    logger: logging.Logger
    board: RunBoard
    processes: Processes
    before_epoch: Callable[[], None]
    selector: Selector = field(init=False)
    stopping: EarlyStopping = field(init=False)
    progress: EpochProgress = field(init=False)
    history: list[dict[str, Any]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        s = self.settings
        self.selector = Selector(s.select_on, s.metric_scoring)
        self.stopping = EarlyStopping(
            s.early_stopping.patience,
            s.early_stopping.min_delta,
            higher_is_better=self.selector.higher_is_better,
        )
        self.progress = EpochProgress(s.start_epoch)
        #: Checkpoints of this run; a folder used before may hold another run's under the same names.
        self.written: set[Path] = set()
        #: The weights the run began with, whatever a continuation was built from.
        self.start_weights = None if self.model.load_report is None else self.model.load_report.to_dict()
        self._rng: Mapping[str, Any] | None = None
        self.processes.begin(s.start_epoch, 0)
        self.frames = self.data.digests()

    @property
    def end_epoch(self) -> int:
        """The epoch after the last one: exactly ``nEpochs`` are run."""
        return self.settings.start_epoch + self.settings.nEpochs

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping left epochs out; patience may also run out with the last one."""
        return self.stopping.should_stop and self.progress.epoch < self.end_epoch

    def run(self) -> None:
        """Trains until ``nEpochs`` are done or early stopping ends the run.

        Raises:
            RunFailure: If training cannot go on; the last good state is in ``ckpt_last.pth``.
            Interrupted: If the run was asked to stop; likewise.
        """
        batches = len(self.data.loader)
        done = (self.progress.epoch - self.settings.start_epoch) * batches + self.progress.batches
        total = self.settings.nEpochs * batches
        with (
            bar(total=total, initial=done, desc="fine-tuning", unit="batch") as progress,
            self._reports(progress),
        ):
            while self.progress.epoch < self.end_epoch and not self.stopping.should_stop:
                try:
                    self._epoch()
                except (Interrupted, RunFailure):
                    self.save_last()
                    raise
        if self.stopped_early:
            waited = f"{self.stopping.waited} epochs without a better {self.settings.metric_scoring}"
            self.logger.info("stopped early: %s (early_stopping.patience)", waited)
        if self.selector.needs_fallback:
            self.save_best()

    @contextmanager
    def _reports(self, progress: tqdm) -> Iterator[None]:
        """Connects the loop's reports while it runs, and no longer.

        A loop that kept them would refer back to the session: model and loader would then outlive the run
        until the garbage collector finds them, and it can only wait for the loader's processes in vain.
        """

        def advance_bar(count: int, loss: float) -> None:
            progress.set_postfix(epoch=self.progress.epoch, loss=f"{loss:.4f}", refresh=False)
            progress.update(count)

        before = self.loop.on_record, self.loop.on_step
        self.loop.on_record, self.loop.on_step = self._record, advance_bar
        try:
            yield
        finally:
            self.loop.on_record, self.loop.on_step = before

    def _epoch(self) -> None:
        epoch, number = self.progress.epoch, self.progress.epoch - self.settings.start_epoch + 1
        self.data.loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        self.before_epoch()
        self._restore_rng()
        rate = learning_rate(self.optimizer)
        self.logger.info("epoch %d (%d of %d), learning rate %g", epoch, number, self.settings.nEpochs, rate)
        if self.progress.batches < len(self.data.loader):  # else a resumed run owes only the validation
            self.loop.run_epoch(self.data.loader, self.progress, after_skip=self._restore_rng)
        self._rng = None
        self._check_missing()
        results, seconds = self._validate()
        values = {name: result.metric(self.settings.metric_scoring) for name, result in results.items()}
        losses = {name: result.metric("loss") for name, result in results.items()}
        selected = self.selector.consider(epoch, values, losses)
        if selected:
            self.save_best()
        if results:
            self.stopping.update(self.selector.comparable_value(values))
        self._write_history(epoch, rate, results, seconds, selected)
        advance(self.scheduler)
        self.progress = EpochProgress(epoch + 1)
        finished = self.progress.epoch == self.end_epoch or self.stopping.should_stop
        if finished or number % self.settings.save_epoch == 0:
            self.save_last()

    def _validate(self) -> tuple[Mapping[str, DatasetResult], float]:
        if not self.data.selection:
            return {}, 0.0
        started = time.perf_counter()
        try:
            results = self.validate().datasets
        except KeyboardInterrupt:
            raise Interrupted from None
        except EvaluationFailure as error:
            # What it had measured chooses a checkpoint; it is no test result.
            raise RunFailure(f"validation: {error}") from error
        return results, time.perf_counter() - started

    def _epoch_value(self, results: Mapping[str, DatasetResult]) -> float | None:
        return mean_of_known({n: r.metric(self.settings.metric_scoring) for n, r in results.items()})

    def _check_missing(self) -> None:
        """Fails when more training frames were missing than allowed; below that they are counted."""
        p, allowed = self.progress, self.settings.max_missing_rate
        rate = p.missing / max(p.samples + p.missing, 1)
        if rate > allowed:
            raise RunFailure(
                f"{p.missing} of {p.samples + p.missing} training frames could not be read ({rate:.2%}, "
                f"allowed {allowed:.2%}); next: effort-finetune check-data, or raise max_missing_rate"
            )
        if p.missing:
            self.logger.warning("%d training frames could not be read; they were left out", p.missing)

    def _record(self, record: Record) -> None:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in record.loss.items())
        owed = (self.end_epoch - record.epoch) * record.batches - record.batch
        self.logger.info(
            "epoch %d, batch %d of %d: loss %s; lr %g, gradient norm %.3g, %.1f frames/s, %s left to train",
            *(record.epoch, record.batch, record.batches, losses, record.lr, record.grad_norm),
            *(record.samples_per_second, tqdm.format_interval(owed * record.seconds_per_batch)),
        )
        self.board.record(record, self._step(record.epoch, record.batch))

    def _step(self, epoch: int, batch: int) -> int:
        return (epoch - self.settings.start_epoch) * len(self.data.loader) + batch

    def _write_history(
        self,
        epoch: int,
        rate: float,
        results: Mapping[str, DatasetResult],
        seconds: float,
        selected: bool,
    ) -> None:
        entry: dict[str, Any] = {"epoch": epoch, "lr": rate, "train": self.progress.summary()}
        entry["selection"] = {name: _numbers(result) for name, result in results.items()}
        entry["selection_missing"] = {n: r.block["counts"]["frames_missing"] for n, r in results.items()}
        entry["selection_value"] = self._epoch_value(results)
        entry["selected"] = selected
        entry["selection_seconds"] = seconds
        self.history.append(entry)
        split = "test" if self.settings.select_on == "test" else "val"
        for name, numbers in entry["selection"].items():
            self.board.metrics(split, name, numbers, self._step(epoch, self.progress.batches))
            shown = ", ".join(f"{k} {v:.4f}" for k, v in numbers.items() if k in _LOGGED and v is not None)
            self.logger.info("epoch %d, %s of %s: %s", epoch, split, name, shown)
        self.logger.info(
            "epoch %d: %s %s%s; memory %s",
            epoch,
            self.settings.metric_scoring,
            "not measured" if entry["selection_value"] is None else f"{entry['selection_value']:.4f}",
            ", selected" if selected else "",
            describe_memory(self.loop.device),
        )

    def save_best(self) -> None:
        """Writes ``ckpt_best.pth``: the weights as they are now."""
        checkpoint.save_best(self.paths.best, self.model)
        self.written.add(self.paths.best)

    def save_last(self) -> None:
        """Writes ``ckpt_last.pth``: all that :meth:`restore` needs."""
        checkpoint.save_last(
            self.paths.last,
            model=self.model,
            settings=self.settings.to_dict(),
            state={
                "settings_digest": self.settings.digest(),
                "epoch": self.progress.epoch,
                "progress": self.progress.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "scaler": self.loop.scaler.state_dict(),
                "selection": self.selector.state_dict(),
                "early_stopping": self.stopping.state_dict(),
                "history": self.history,
                "start_weights": self.start_weights,
                "processes": self.processes.to_list(),
                "frames": self.frames,
            },
        )
        self.written.add(self.paths.last)

    def restore(self, saved: Mapping[str, Any], folder: Path) -> None:
        """Takes up a run where :meth:`save_last` left it, in the middle of an epoch too.

        Args:
            saved: From :func:`effort_finetune.weights.run_state.load_last`.
            folder: Where it was saved; its best checkpoint comes along if this run has another folder.

        Raises:
            UserError: If its settings are those of another run or its tensors do not fit.
        """
        checkpoint.check_settings(saved["settings"], self.settings.to_dict())
        checkpoint.restore(saved, self.model, self.optimizer, self.scheduler, self.loop.scaler)
        self.selector.load_state_dict(saved["selection"])
        self.stopping.load_state_dict(saved["early_stopping"])
        self.progress = EpochProgress.from_state(saved["progress"])
        self.history = list(saved["history"])
        self.start_weights = saved["start_weights"]
        self.processes.begin(self.progress.epoch, self.progress.batches, saved["processes"])
        self._rng = saved["rng"]
        if self.selector.best is not None:
            checkpoint.carry_best(folder, self.paths.best)
            self.written.add(self.paths.best)

    def _restore_rng(self) -> None:
        if self._rng is not None:
            checkpoint.set_rng_state(self._rng)


_KEPT = ("auc", "ap", "eer", "acc", "acc_real", "acc_fake", "precision", "recall", "f1")
_LOGGED = frozenset({"loss", "auc", "eer", "acc", "ap", "video_auc", "video_eer", "video_acc"})


def _numbers(result: DatasetResult) -> dict[str, float | None]:
    """Returns what history and TensorBoard keep of a dataset's measurement."""
    names = ["loss", *_KEPT, *(f"video_{name}" for name in _KEPT)]
    return {name: result.metric(name) for name in names}
