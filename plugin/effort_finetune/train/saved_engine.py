"""What of a run is in its ``ckpt_last.pth``, and how another process takes it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.regularisers import Regulariser
from effort_finetune.train import resuming
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.weights import run_state


def document(engine: Any) -> dict[str, Any]:
    """Returns all of an :class:`~effort_finetune.train.engine.Engine` that :func:`take_up` needs."""
    assert engine.frozen is not None
    settings = engine.job.settings
    return {
        "settings": settings.to_dict(),
        "settings_digest": settings.digest(),
        "frozen": asdict(engine.frozen),
        "changing": run_state.copy_of(engine.model, engine.changing),
        "best": engine.best,
        "optimizer": engine.optimizer.state_dict(),
        "scheduler": engine.schedule.state_dict(),
        "start_bases": None if (terms := _regulariser(engine)) is None else terms.start_bases(),
        "average": None if engine.average is None else engine.average.state_dict(),
        "hard_examples": None if engine.hard is None else engine.hard.state_dict(),
        "micro_batch": engine.loop.micro.state_dict(),
        "scaler": engine.loop.scaler.state_dict(),
        **engine.draws.state_dict(),
        "epoch": engine.progress.epoch,
        "progress": engine.progress.state_dict(),
        "selection": engine.selector.state_dict(),
        "early_stopping": engine.stopping.state_dict(),
        "history": engine.history,
        "start": engine.start,
        "start_weights": engine.start_weights,
        "processes": engine.processes.to_list(),
        "frames": dict(engine.frames),
    }


def _regulariser(engine: Any) -> Regulariser | None:
    return engine.model.regulariser if isinstance(engine.model, EffortFinetuneDetector) else None


def take_up(engine: Any, saved: Mapping[str, Any]) -> None:
    """Puts an engine where the saved one was.

    Args:
        engine: A new one, of the same settings and data.
        saved: From :func:`effort_finetune.weights.run_state.load_last`.

    Raises:
        UserError: If its settings or frames are those of another run, or its tensors do not fit.
    """
    settings = engine.job.settings
    resuming.check_settings(saved["settings"], settings.to_dict())
    resuming.check_epochs(saved, settings.start_epoch, settings.nEpochs)
    resuming.check_frames(saved["frames"], engine.frames)
    resuming.restore(saved, engine.model, engine.optimizer, engine.schedule, engine.loop.scaler)
    if (terms := _regulariser(engine)) is not None:
        terms.take_start_bases(saved.get("start_bases") or {})  # not in a state of an earlier version
    if engine.average is not None:
        engine.average.load_state_dict(saved["average"])
    if engine.hard is not None:
        engine.hard.load_state_dict(saved["hard_examples"])
    if "micro_batch" in saved:  # not in a state of an earlier version
        asked_anew = saved["settings"].get("micro_batch") != settings.micro_batch
        engine.loop.micro.load_state_dict(saved["micro_batch"], asked_anew=asked_anew)
    engine.selector.load_state_dict(saved["selection"])
    engine.stopping.load_state_dict(saved["early_stopping"])
    engine.progress = EpochProgress.from_state(saved["progress"])
    engine.history, engine.start, engine.best = list(saved["history"]), saved["start"], saved["best"]
    engine.start_weights = saved["start_weights"]
    engine.processes.begin(engine.progress.epoch, engine.progress.batches, saved["processes"])
    engine.draws.load_state_dict(saved)
