"""What the other processes of a run do when the first one, which writes, has died."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import mark_of
from effort_finetune.core.locks import hold
from effort_finetune.core.ranks import Ranks
from effort_finetune.weights import run_state

if TYPE_CHECKING:
    from effort_finetune.train.engine import Engine

#: A dead process's lock is free within moments of its connections.
_TRIES, _PAUSE = 10, 0.2


def stand_in(ours: Ranks, engine: Engine, held: ExitStack, *, before: tuple[int, int, int] | None) -> None:
    """Makes this process the one that writes, where the first one is gone and no other was faster.

    All processes have the same weights, optimiser and record after each step, so that any can save the run.
    That the first one is gone is what its lock tells: while it lives it holds the run folder.

    Args:
        ours: The processes; ``leads`` is set.
        engine: The run.
        held: Holds the run folder from here on.
        before: Mark of the run's results file (:func:`~effort_finetune.core.files.mark_of`) when this process
            began; a date would not do, since a clock may be set back.
    """
    if ours.leads or not engine.folder.is_dir():
        return
    for _ in range(_TRIES):
        try:
            held.enter_context(hold(engine.folder))
            break
        except UserError:
            time.sleep(_PAUSE)
    else:
        return
    last = engine.folder / run_state.LAST_NAME
    if last.is_file():
        saved: Any = run_state.load_last(last)["progress"]
        own = engine.progress
        if (saved["epoch"], saved["batches"]) > (own.epoch, own.batches):
            return  # the first process saved a step that this one did not see the end of
    now = mark_of(engine.folder / "results.json")
    if now is not None and now != before:
        return  # it ended in order, and said why
    ours.leads = True
