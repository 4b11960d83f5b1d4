"""Builds what a run needs, in the order in which things can go wrong most cheaply."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from effort_finetune.core import seeding
from effort_finetune.core.device import choose_device, device_name
from effort_finetune.core.errors import UserError
from effort_finetune.core.interrupt import InterruptGuard
from effort_finetune.core.precision import Precision, resolve_precision
from effort_finetune.evaluate.dataset_results import DatasetResults
from effort_finetune.evaluate.evaluation import evaluate_model
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.data import RunData, open_data
from effort_finetune.train.features import feature_run
from effort_finetune.train.loop import Batch, TrainingLoop
from effort_finetune.train.optim import build_optimizer
from effort_finetune.train.run_files import RunPaths, prepare_paths
from effort_finetune.train.run_history import Processes
from effort_finetune.train.schedule import build_scheduler, schedule_warning
from effort_finetune.train.selection import Selector
from effort_finetune.train.session import Session
from effort_finetune.train.tensorboard import RunBoard
from effort_finetune.weights import run_state as checkpoint

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

_FRAMES_NAMED = 8  # in an error message about a batch


@dataclass(frozen=True)
class Prepared:
    """Everything that can go wrong by what the user asked for, done before a file is written."""

    device: torch.device
    precision: Precision
    saved: dict[str, Any] | None
    data: RunData
    model: EffortFinetuneDetector
    optimizer: Optimizer
    scheduler: LRScheduler | None
    paths: RunPaths

    @property
    def first_step(self) -> int | None:
        """The batch of the run, counted from 0, at which a resumed one goes on."""
        if self.saved is None:
            return None
        epochs = self.saved["epoch"] - self.saved["settings"]["start_epoch"]
        return epochs * len(self.data.loader) + self.saved["progress"]["batches"]


def prepare(settings: Settings, host: Host) -> Prepared:
    """Checks device, precision, checkpoint to resume, data, weights, optimiser and output folders.

    The folders come last: a run that cannot start leaves none behind.

    Raises:
        UserError: If any of them is not as asked for.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "finetune under torchrun",
            got=f"{os.environ['WORLD_SIZE']} processes",
            expected="one process on one device",
            next_step="start it without torchrun; accumulation_steps gives large batches on one device",
        )
    Selector(settings.select_on, settings.metric_scoring)  # an unknown metric is an error of the first second
    device = choose_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    saved = None
    if settings.resume is not None:
        saved = checkpoint.load_last(settings.resume)
        if "progress" not in saved:
            raise UserError(
                "--resume",
                got=f"{settings.resume}, written by a host's train.py",
                expected=f"the {checkpoint.LAST_NAME} of finetune",
                next_step="resume it with train.py, or start a new run with --pretrained_weights",
            )
        checkpoint.check_settings(saved["settings"], settings.to_dict())
        checkpoint.check_epochs(saved, settings.start_epoch, settings.nEpochs)
    data = open_data(settings, host, pin_memory=device.type == "cuda")
    if saved is not None:
        checkpoint.check_frames(saved["frames"], data.digests())
    seeding.seed_everything(settings.manualSeed)
    model = build_model(settings, data).to(device)
    optimizer = build_optimizer(model, settings)
    scheduler = build_scheduler(optimizer, settings)
    paths = prepare_paths(settings, host)
    return Prepared(device, precision, saved, data, model, optimizer, scheduler, paths)


def build_session(
    settings: Settings,
    host: Host,
    prepared: Prepared,
    *,
    logger: logging.Logger,
    guard: InterruptGuard,
    board: RunBoard,
    started: float,
) -> Session:
    """Puts the parts of a run together, says what they are, and takes up the state of a resumed one.

    Args:
        settings: Resolved settings.
        host: The host.
        prepared: The parts.
        logger: The run's log.
        guard: Asked whether to stop.
        board: TensorBoard.
        started: ``time.perf_counter()`` at the start of the process.

    Raises:
        UserError: If the saved state is that of another model.
    """
    device, precision, data, model = prepared.device, prepared.precision, prepared.data, prepared.model
    logger.info("seed %d for Python, numpy and torch", settings.manualSeed)
    logger.info("device: %s; precision: %s (%s)", device_name(device), precision.name, precision.reason)
    if model.load_report is not None:
        for line in model.load_report.lines():
            logger.info("%s", line)
    logger.info(model.status.line())
    logger.info(model.trainable.line())
    if warning := schedule_warning(settings):
        logger.warning(warning)
    head = feature_run(model, data, settings, logger)
    trained: torch.nn.Module = model
    selection = data.selection
    validation = settings
    if head is not None:
        trained, selection, data = head.model, head.selection, replace(data, loader=head.loader)
        validation = settings.changed(workers=0)  # there is nothing to decode
    loop = TrainingLoop(
        trained,
        prepared.optimizer,
        precision,
        device,
        accumulation_steps=settings.accumulation_steps,
        clip_grad_norm=settings.clip_grad_norm,
        rec_iter=settings.rec_iter,
        should_stop=guard,
        describe=lambda batch: _frames_of(batch, data),
    )

    def validate() -> DatasetResults:
        return evaluate_model(
            trained,
            host,
            validation,
            tuple(selection),
            "test" if settings.select_on == "test" else "val",
            datasets=selection,
            autocast=precision.dtype,
            bootstrap_samples=0,
            should_stop=guard,
        )

    session = Session(
        settings=settings,
        paths=prepared.paths,
        model=model,
        optimizer=prepared.optimizer,
        scheduler=prepared.scheduler,
        loop=loop,
        data=data,
        validate=validate,
        logger=logger,
        board=board,
        processes=Processes(device, precision, started),
        before_epoch=lambda: None if head is None else head.compute(settings, precision, logger, guard),
    )
    if prepared.saved is not None and settings.resume is not None:
        session.restore(prepared.saved, checkpoint.folder_of(settings.resume))
        logger.info("resumed at epoch %d, batch %d", session.progress.epoch, session.progress.batches)
    return session


def build_model(settings: Settings, data: RunData) -> EffortFinetuneDetector:
    """Builds the detector and tells it the class counts that balanced weights need.

    A resumed run is built from its own state, which holds every weight: what it began with may be gone.

    Raises:
        UserError: If the weights cannot be used, or a class to be balanced is absent.
    """
    real, fake = data.counts
    if settings.loss.class_weights == "balanced" and not (real and fake):
        raise UserError(
            "loss.class_weights 'balanced'",
            got=f"{real} real and {fake} fake training frames",
            expected="frames of both classes",
        )
    if settings.resume is not None:
        settings = settings.changed(pretrained_weights=str(checkpoint.state_file(settings.resume)))
    model = EffortFinetuneDetector(settings)
    model.set_class_counts(real, fake)
    return model


def _frames_of(batch: Batch, data: RunData) -> list[str]:
    paths = [data.train.rows[int(index)].path for index in batch["index"]]
    more = len(paths) - _FRAMES_NAMED
    return [*paths[:_FRAMES_NAMED], f"and {more} more"] if more > 0 else paths
