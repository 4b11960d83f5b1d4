"""Whatever ends a run early becomes one thing: saved state, a reason, and the line that goes on."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.weights.run_state import LAST_NAME

if TYPE_CHECKING:
    from effort_finetune.train.engine import Engine

_SHOWN = 300  # characters of another library's message


def failure_of(error: BaseException, engine: Engine) -> RunFailure:
    """Saves what there is of a run and says why it ended, in one line.

    Args:
        error: What ended it: anything, an interrupt and an error of another library included.
        engine: The run.

    Returns:
        What to raise once the results are written.
    """
    problem = _save(engine)
    reason = _reason(error)
    if problem is not None and problem not in reason:
        reason = f"{reason}; its state could not be saved ({problem})"
    job = engine.job
    if engine.has_state:
        state = str(engine.folder / LAST_NAME if job.part is None else job.part.folder)
    elif job.settings.resume is not None:
        state = job.settings.resume if job.part is None else str(job.part.folder)
    else:
        return RunFailure(f"{reason}; nothing was saved yet")
    if "next:" in reason:  # who raised it knows better what helps
        return RunFailure(f"{reason}; the state is in {state}")
    return RunFailure(f"{reason}; go on with: {job.command_line('--resume', state, without='--resume')}")


def _save(engine: Engine) -> str | None:
    """Saves the state and returns why it could not be saved; what was saved before stays."""
    if not engine.is_whole:
        return None  # a step was cut in two; the last whole state is on the disk
    if engine.best_sha256 is not None:
        return None  # the last epoch's state is on the disk, and the model may hold the selected weights
    try:
        engine.save()
    except Exception as error:
        return _reason(error)
    return None


def _reason(error: BaseException) -> str:
    """Says what happened, in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, (RunFailure, UserError)):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "the machine ran out of memory; fewer workers or a smaller train_batchSize need less"
    text = " ".join(str(error).split())[:_SHOWN]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space is left on the disk ({text})"
    return f"{type(error).__name__}: {text}"
