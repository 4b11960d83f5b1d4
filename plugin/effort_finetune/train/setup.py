"""Builds what a run needs, in the order in which things can go wrong most cheaply."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from effort_finetune.core import ranks, seeding
from effort_finetune.core.agreement import check_agreement
from effort_finetune.core.crop_recipe import stated
from effort_finetune.core.device import choose_device, device_name
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.interrupt import InterruptGuard
from effort_finetune.core.precision import Precision, resolve_precision
from effort_finetune.data.batch_pieces import Batch
from effort_finetune.data.loader import epoch_sampler
from effort_finetune.evaluate.evaluation import EvaluationFailure, evaluate_model
from effort_finetune.model.chosen_detector import ChosenDetector, build_host_detector, choose_detector
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.low_rank import require_peft
from effort_finetune.model.preprocessing import obey
from effort_finetune.model.saved_activations import offloaded, recompute_blocks
from effort_finetune.train import resuming
from effort_finetune.train.data import RunData, open_data
from effort_finetune.train.data_notes import data_notes
from effort_finetune.train.engine import Engine
from effort_finetune.train.features import FeatureRun, feature_run
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.memory_plan import planned
from effort_finetune.train.micro_batch import MicroBatch
from effort_finetune.train.optim import build_optimizer
from effort_finetune.train.reports import Reports
from effort_finetune.train.run_files import RunPaths, choose_paths
from effort_finetune.train.run_history import Processes
from effort_finetune.train.schedule import build_schedule, schedule_warning
from effort_finetune.train.selection import Measured, Selector
from effort_finetune.train.step_share import refuse_what_differs
from effort_finetune.train.validation import measured_of
from effort_finetune.weights import run_state

if TYPE_CHECKING:
    from effort_finetune.host import Job

_FRAMES_NAMED = 8  # in an error message about a batch


@dataclass(frozen=True)
class Prepared:
    """A run that can start: everything that can go wrong by what the user asked for has been done.

    Attributes:
        job: What was asked for.
        chosen: Which detector that means.
        device: Where the model is.
        precision: Of the forward pass.
        data: What is read; where features stand in for frames, ``data.loader`` is theirs.
        model: The detector.
        engine: The run.
        paths: Where it will write; nothing is written yet.
        features: What stands in for the frames where the tower never changes what it makes of them.
        notes: What the log should warn of.
    """

    job: Job
    chosen: ChosenDetector
    device: torch.device
    precision: Precision
    data: RunData
    model: nn.Module
    engine: Engine
    paths: RunPaths
    features: FeatureRun | None
    notes: tuple[str, ...] = ()

    def plan_memory(self) -> None:
        """Says what a step will need, and takes as many frames at once as fit where that is asked for."""
        if isinstance(self.model, EffortFinetuneDetector) and not self.engine.is_over:
            self.engine.memory = planned(self.engine, self.data, self.features, self.job.settings)

    @property
    def first_step(self) -> int | None:
        """The batch of the run, counted from 0, at which a resumed one goes on; ``None`` for a new one."""
        if self.job.settings.resume is None:
            return None
        progress = self.engine.progress
        return (progress.epoch - self.job.settings.start_epoch) * len(self.data.loader) + progress.batches

    def compute_features(self, guard: InterruptGuard) -> None:
        """Computes what stands in for the frames, if anything does; before the first epoch."""
        if self.features is not None:
            self.engine.reports.say(self.features.compute(self.job.settings, self.precision, guard))


def prepare(job: Job, guard: InterruptGuard, *, started: float) -> Prepared:
    """Checks device, precision, checkpoint to resume, data, weights, optimiser and output folders.

    The folders come last, and none is made: a run that cannot start leaves nothing behind.

    Args:
        job: What is asked for.
        guard: Asked by the run whether to stop.
        started: ``time.perf_counter()`` at the start of the process.

    Raises:
        UserError: If any of them is not as asked for.
    """
    settings = job.settings
    ours = ranks.current()
    chosen = choose_detector(job.settings, job.host, training=True)
    job = job.changed(model_name=chosen.setting)
    settings = job.settings
    Selector(settings.select_on, settings.metric_scoring)  # an unknown metric is an error of the first second
    require_peft(settings)
    device = choose_device(ranks.device_of(settings.device, ours.launch))
    precision = resolve_precision(settings.precision, device)
    saved = None if settings.resume is None else run_state.load_last(settings.resume)
    if saved is not None:  # before data and weights are read
        settings = obey(settings, earlier=saved["settings"])
        resuming.check_settings(saved["settings"], settings.to_dict())
        resuming.check_epochs(saved, settings.start_epoch, settings.nEpochs)
    elif chosen.is_ours or settings.pretrained_weights is not None:
        settings = obey(settings)
    job = replace(job, settings=settings)
    data = open_data(settings, job.host, pin_memory=device.type == "cuda")
    seeding.seed_everything(settings.manualSeed)
    model = (build_model(job, data) if chosen.is_ours else build_foreign(job, chosen)).to(device)
    if isinstance(model, EffortFinetuneDetector):
        model.trained_on = list(data.trained_on)
        model.statement = replace(model.statement, crop=stated(data.train.recipes()))
    else:
        model.device = device  # type: ignore[assignment]  # as a host's own trainer does
    if ours.size > 1:
        refuse_what_differs(model)
    paths = choose_paths(job)
    paths = replace(paths, folder=Path(ours.first(str(paths.folder))))  # it may be named after the time
    notes = chosen.lines()
    features = None
    if isinstance(model, EffortFinetuneDetector):
        features = feature_run(model, data, settings, notes)
    if features is not None:
        data = replace(data, loader=features.loader)
    engine = _engine(job, model, data, features, precision, device, paths, guard, started)
    if saved is not None:
        engine.restore(saved)
    check_agreement(ours, job.settings.digest(), engine.frames)
    ours.same_weights(model)
    return Prepared(job, chosen, device, precision, data, model, engine, paths, features, tuple(notes))


def _engine(
    job: Job,
    model: nn.Module,
    data: RunData,
    features: FeatureRun | None,
    precision: Precision,
    device: torch.device,
    paths: RunPaths,
    guard: InterruptGuard,
    started: float,
) -> Engine:
    """Puts the parts of a run together.

    Raises:
        UserError: If memory is to be saved in a host's detector, whose blocks nobody knows.
    """
    settings = job.settings
    if settings.activation_checkpointing and not isinstance(model, EffortFinetuneDetector):
        raise UserError(
            "activation_checkpointing", got="true with a host's detector", expected="it with ours alone"
        )
    optimizer = build_optimizer(model, settings)
    hard = epoch_sampler(data.loader).hard
    if settings.activation_checkpointing:
        recompute_blocks(model.backbone)
    trained: nn.Module = model if features is None else features.model
    asked = settings.micro_batch
    loop = TrainingLoop(
        trained,
        optimizer,
        precision,
        device,
        accumulation_steps=settings.accumulation_steps,
        clip_grad_norm=settings.clip_grad_norm,
        rec_iter=settings.rec_iter,
        should_stop=guard,
        describe=lambda batch: _frames_of(batch, data),
        micro=MicroBatch(None if asked == "auto" else asked),
        kept=(lambda: offloaded(model)) if settings.offload_activations else nullcontext,
        on_losses=None if hard is None else hard.note,
    )
    engine = Engine(
        job,
        paths.folder,
        model=model,
        optimizer=optimizer,
        schedule=build_schedule(
            optimizer,
            settings,
            steps=math.ceil(len(data.loader) / settings.accumulation_steps),
            higher_is_better=Selector(settings.select_on, settings.metric_scoring).higher_is_better,
        ),
        loop=loop,
        validate=_validation(job, trained, data, features, precision, guard) if data.selection else None,
        processes=Processes(device, precision, started),
        frames=data.digests(),
        hard=hard,
    )
    engine.data_notes = data_notes(data)
    return engine


def _validation(
    job: Job,
    trained: nn.Module,
    data: RunData,
    features: FeatureRun | None,
    precision: Precision,
    guard: InterruptGuard,
) -> Callable[[], Measured]:
    """Returns what measures the model on the data that chooses the checkpoint."""
    # There is nothing to decode of features.
    settings = job.settings if features is None else job.settings.changed(workers=0)
    selection = data.selection if features is None else features.selection

    def validate() -> Measured:
        try:
            results = evaluate_model(
                trained,
                job.host,
                settings,
                tuple(selection),
                "test" if settings.select_on == "test" else "val",
                datasets=selection,
                autocast=precision.dtype,
                bootstrap_samples=0,
                should_stop=guard,
            )
        except EvaluationFailure as error:
            # What it had measured chooses a checkpoint; it is no test result.
            raise RunFailure(f"validation: {error}") from error
        return measured_of(results, settings)

    return validate


def attach_reports(prepared: Prepared, reports: Reports) -> None:
    """Lets a run speak, and says what it is made of."""
    settings, model = prepared.job.settings, prepared.model
    prepared.engine.reports = reports
    prepared.engine.loop.micro.on_halved = reports.warn
    reports.say(f"seed {settings.manualSeed} for Python, numpy and torch")
    precision = prepared.precision
    reports.say(f"device: {device_name(prepared.device)}; precision: {precision.name} ({precision.reason})")
    report: Any = getattr(model, "load_report", None)
    for line in () if report is None else report.lines():
        reports.say(line)
    if isinstance(model, EffortFinetuneDetector):
        reports.say(model.status.line())
        reports.say(model.trainable.line())
    for warning in (schedule_warning(settings), *prepared.notes):
        if warning is not None:
            reports.warn(warning)
    if prepared.features is not None:
        reports.say(prepared.features.line())
    if settings.resume is not None:
        progress = prepared.engine.progress
        reports.say(f"resumed at epoch {progress.epoch}, batch {progress.batches}")


def build_model(job: Job, data: RunData) -> EffortFinetuneDetector:
    """Builds the detector and tells it the class counts that balanced weights need.

    A resumed run is built from its own folder, which holds every weight: what it began with may be gone.

    Raises:
        UserError: If the weights cannot be used, or a class to be balanced is absent.
    """
    settings = job.settings
    real, fake = data.counts
    if settings.loss.class_weights == "balanced" and not (real and fake):
        raise UserError(
            "loss.class_weights 'balanced'",
            got=f"{real} real and {fake} fake training frames",
            expected="frames of both classes",
        )
    if settings.resume is not None:
        settings = settings.changed(pretrained_weights=str(run_state.state_file(settings.resume)))
    model = EffortFinetuneDetector(settings)
    model.set_class_counts(real, fake)
    return model


def build_foreign(job: Job, chosen: ChosenDetector) -> nn.Module:
    """Builds a detector of the host; that of a resumed run gets all its weights from the run's state.

    Raises:
        UserError: It cannot be built, or the weights are not its own.
    """
    if job.settings.resume is None:
        return build_host_detector(chosen, job.settings, job.host)
    return build_host_detector(chosen, job.settings, job.host, fresh=True)


def _frames_of(batch: Batch, data: RunData) -> list[str]:
    paths = [data.train.rows[int(index)].path for index in batch["index"]]
    more = len(paths) - _FRAMES_NAMED
    return [*paths[:_FRAMES_NAMED], f"and {more} more"] if more > 0 else paths
