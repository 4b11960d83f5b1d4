"""The engine: model, optimiser, schedule, selection, checkpoints and resume of every run, epoch by epoch.

Whoever made the model and the loaders, a run goes through here: ``finetune`` drives it from the first epoch
to the last, a host's own loop one epoch at a time. All of its state is in ``ckpt_last.pth``, in one format.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from effort_finetune.core import ranks, seeding
from effort_finetune.core.counted import counted
from effort_finetune.data.hard_examples import HardExamples
from effort_finetune.data.loader import epoch_sampler
from effort_finetune.train import saved_engine
from effort_finetune.train.draws import Draws
from effort_finetune.train.early_stopping import EarlyStopping
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.guards import Watched, findings
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.optim import highest_rates, learning_rates
from effort_finetune.train.reports import Reports
from effort_finetune.train.run_history import Processes
from effort_finetune.train.schedule import Schedule
from effort_finetune.train.selection import Measured, Selector
from effort_finetune.train.weight_average import WeightAverage
from effort_finetune.weights import run_state

if TYPE_CHECKING:
    from effort_finetune.host import Job


@dataclass
class Engine:
    """One run: what it is made of, how far it is, and how it moves on.

    Args:
        job: Settings, host and command.
        folder: The run folder.
        model: Any detector under DeepfakeBench's contract, on its device.
        optimizer: Over its trainable parameters.
        schedule: Of its rates.
        loop: Makes the steps.
        validate: Measures the model on the data that chooses the checkpoint; ``None`` where none does.
        processes: The record of the processes the run was made by.
        reports: Log, curves and progress bar.
        frames: Which frames train and choose, as hashes by name; a continuation has to have the same.
        metric: What chooses the checkpoint; ``None`` takes ``metric_scoring``.
        hard: Remembers the frames' losses for the order of the next epoch, where something is to.

    Attributes:
        progress: How far the present epoch is.
        history: One entry for each epoch done.
        start: What the weights scored before the first step.
        best: A copy of the selected epoch's trained weights; ``None`` before an epoch is selected.
        best_sha256: Of ``ckpt_best.pth`` as this run wrote it; ``None`` before :meth:`finish`.
        memory: What a step was estimated to need, in bytes.
        data_notes: What of the training data may explain a low number.
        start_weights: Where the run began, whatever a continuation was built from.
    """

    job: Job
    folder: Path
    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    loop: TrainingLoop
    validate: Callable[[], Measured] | None
    processes: Processes
    reports: Reports = field(default_factory=Reports)
    frames: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None
    hard: HardExamples | None = None

    def __post_init__(self) -> None:
        s = self.job.settings
        self.selector = Selector(s.select_on, self.metric or s.metric_scoring)
        self.stopping = EarlyStopping(
            s.early_stopping.patience,
            s.early_stopping.min_delta,
            higher_is_better=self.selector.higher_is_better,
        )
        self.progress = EpochProgress(s.start_epoch)
        self.history: list[dict[str, Any]] = []
        self.start: dict[str, Any] | None = None
        self.best: dict[str, Tensor] | None = None
        self.best_sha256: str | None = None
        self.has_state = False
        self.data_notes: Sequence[str] = ()
        self.memory: dict[str, Any] | None = None
        report = getattr(self.model, "load_report", None)
        self.start_weights: dict[str, Any] | None = None if report is None else report.to_dict()
        self.changing = run_state.changing_names(self.model)
        self.average = None if s.ema_decay is None else WeightAverage(self.model, self.changing, s.ema_decay)
        self.frozen: run_state.FrozenPart | None = None
        self.draws = Draws(self.loop)
        self._settling = False
        self.processes.begin(s.start_epoch, 0)

    @property
    def end_epoch(self) -> int:
        """The epoch after the last one: exactly ``nEpochs`` are run."""
        return self.job.settings.start_epoch + self.job.settings.nEpochs

    @property
    def is_over(self) -> bool:
        """Whether no epoch is owed any more."""
        return self.progress.epoch >= self.end_epoch or self.stopping.should_stop

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping left epochs out; patience may also run out with the last one."""
        return self.stopping.should_stop and self.progress.epoch < self.end_epoch

    @property
    def is_whole(self) -> bool:
        """Whether weights, optimiser and record belong together, so that they can be saved."""
        return self.loop.is_whole and not self._settling

    def run(self, loader: DataLoader[Any], before_epoch: Callable[[], None] = lambda: None) -> None:
        """Trains until ``nEpochs`` are done or early stopping ends the run, and writes the selected weights.

        Args:
            loader: The training batches.
            before_epoch: Called before anything is measured or trained.

        Raises:
            RunFailure: If training cannot go on.
            Interrupted: If the run was asked to stop.
        """
        batches = len(loader)
        total = self.job.settings.nEpochs * batches
        with self.reports.bar(total=total, done=self.steps_done(batches)):
            if not self.is_over:
                before_epoch()
                self.measure_start()
            while not self.is_over:
                self.epoch(loader)
        self.finish()

    def measure_start(self) -> None:
        """Measures the weights before the first step, once a run; training is the same with and without."""
        if self.validate is None or self.start is not None or self.history or self.progress.batches:
            return
        before = seeding.plain_state(seeding.capture())
        try:
            measured, seconds = self._measure()
        finally:
            seeding.restore_state(before)
        self.start = {"epoch": "start", **measured.to_dict(), "selection_seconds": seconds}
        self.reports.measured("start", self.selector, measured, step=0)

    def epoch(self, loader: DataLoader[Any]) -> None:
        """Trains on what the present epoch still owes, measures, selects and saves.

        Raises:
            RunFailure: If training cannot go on.
            Interrupted: If the run was asked to stop.
        """
        epoch, batches = self.progress.epoch, len(loader)
        number = epoch - self.job.settings.start_epoch + 1
        sampler = epoch_sampler(loader)
        if hasattr(sampler, "set_epoch"):  # ours and torch's distributed one; a resumed run starts late
            sampler.set_epoch(epoch)
        self.model.epoch = epoch  # type: ignore[assignment]  # what hosts' train.py says to their detectors
        rates = highest_rates(self.optimizer)
        self.reports.epoch_begins(epoch, number, self.job.settings.nEpochs, rates)
        self.draws.begin_epoch()
        with self._reported(batches):
            if self.progress.batches < batches:  # else a resumed run owes only the validation
                self.loop.run_epoch(loader, self.progress, after_skip=self.draws.take_up)
        self.draws.take_up()
        if self.progress.check_missing(self.job.settings.max_missing_rate):
            self.reports.warn(
                f"{self.progress.missing} training frames could not be read; they were left out"
            )
        measured, seconds = self._measure() if self.validate else (Measured(), 0.0)
        self._settling = True
        # A rate by steps is recorded as it ended: a run that was resumed did not see it begin.
        self._settle(epoch, learning_rates(self.optimizer), measured, seconds)
        self._settling = False
        if self.history[-1]["selected"] and measured.interval is not None:
            self.history[-1]["selection_interval"] = dict(measured.interval())
        self.reports.measured(
            epoch, self.selector, measured, step=self._step(epoch, batches, batches), entry=self.history[-1]
        )
        self.reports.findings(findings(self.watched()))
        if self.is_over or number % self.job.settings.save_epoch == 0:
            self.save()

    def watched(self) -> Watched:
        """Returns what the guards look at."""
        return Watched(self.start, self.history, self.selector, self.is_over, self.data_notes)

    def _settle(self, epoch: int, rates: list[dict[str, Any]], measured: Measured, seconds: float) -> None:
        """Ends an epoch: what it was, whether it is the best, and the step to the next one."""
        losses = {name: numbers.get("loss") for name, numbers in measured.numbers.items()}
        selected = self.selector.consider(epoch, measured.values, losses)
        if selected:
            with self._averaged():
                self.best = run_state.copy_of(self.model, self.changing)
        if measured.numbers:
            self.stopping.update(self.selector.comparable_value(measured.values))
        self.history.append(
            {
                "epoch": epoch,
                "lr": rates[0]["lr"],
                "rates": rates,
                "train": self.progress.summary(),
                **measured.to_dict(),
                "selected": selected,
                "selection_seconds": seconds,
            }
        )
        known = bool(measured.numbers)
        self.schedule.epoch_done(self.selector.comparable_value(measured.values) if known else None)
        self.draws.end_epoch()
        if self.hard is not None:
            self.hard.epoch_done()
        self.progress = EpochProgress(epoch + 1)

    def _measure(self) -> tuple[Measured, float]:
        assert self.validate is not None
        started = time.perf_counter()
        with self._averaged():
            measured = self.validate()
        # One process decides for all, though each computes the same of the same scores.
        plain = {name: dict(known) for name, known in measured.numbers.items()}
        values, numbers = ranks.current().first([dict(measured.values), plain])
        return replace(measured, values=values, numbers=numbers), time.perf_counter() - started

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.in_place()

    def _step_made(self) -> None:
        self.schedule.step_made()
        if self.average is not None:
            self.average.update()

    @contextmanager
    def _reported(self, batches: int) -> Iterator[None]:
        """Connects the loop's reports while it runs, and no longer.

        A loop that kept them would refer back to the engine: model and loader would then outlive the run
        until the garbage collector finds them, and it can only wait for the loader's processes in vain.
        """
        before = self.loop.on_record, self.loop.on_step, self.loop.after_step
        self.loop.on_record = lambda record: self.reports.record(
            record,
            step=self._step(record.epoch, record.batch, batches),
            owed=(self.end_epoch - record.epoch) * batches - record.batch,
        )
        self.loop.on_step = lambda count, loss: self.reports.step(self.progress.epoch, count, loss)
        self.loop.after_step = self._step_made
        try:
            yield
        finally:
            self.loop.on_record, self.loop.on_step, self.loop.after_step = before

    def steps_done(self, batches: int) -> int:
        """Returns the batches of the run so far, of ``batches`` an epoch: the curves' axis."""
        return self._step(self.progress.epoch, self.progress.batches, batches)

    def _step(self, epoch: int, batch: int, batches: int) -> int:
        return (epoch - self.job.settings.start_epoch) * batches + batch

    def finish(self) -> None:
        """Writes ``ckpt_best.pth``: the selected weights, or where no epoch had a metric the last ones."""
        if self.stopped_early:
            waited = f"{counted(self.stopping.waited, 'epoch')} without a better {self.selector.metric}"
            self.reports.say(f"stopped early: {waited} (early_stopping.patience)")
        if not ranks.current().leads:
            return
        with self._averaged():
            self.best_sha256 = run_state.save_best(self.folder / run_state.BEST_NAME, self.model, self.best)

    def write_frozen(self) -> None:
        """Writes what training cannot change into the run folder, once.

        Raises:
            RunFailure: If it cannot be written.
        """
        self.frozen = run_state.write_frozen(self.folder, self.model, self.changing)

    def save(self) -> None:
        """Writes ``ckpt_last.pth``: all that :meth:`restore` needs, in the middle of an epoch too.

        Of several processes, which all have the same, the first one writes.

        Raises:
            RunFailure: If it cannot be written.
        """
        if not ranks.current().leads:
            return
        if self.frozen is None:
            self.write_frozen()
        run_state.save_last(self.folder / run_state.LAST_NAME, saved_engine.document(self))
        self.has_state = True

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes up a run where :meth:`save` left it.

        Args:
            saved: From :func:`effort_finetune.weights.run_state.load_last`.

        Raises:
            UserError: If its settings or frames are those of another run, or its tensors do not fit.
        """
        saved_engine.take_up(self, saved)
