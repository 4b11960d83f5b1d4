"""What the block at the top of a host's ``train.py`` and ``test.py`` calls before anything else runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from effort_finetune.core.exit_code import exit_code
from effort_finetune.guest.asked import Asked, read_asked

__all__ = ["take_over"]


def take_over(file: str, name: str) -> None:
    """Runs our detector's whole job, prepares a run that is half ours, or returns at once.

    * Our detector: :func:`effort_finetune.guest.whole_job.run`; the process ends with its exit code and no
      further line of the script runs.
    * Our detector with ``trainer: null``, or another one with ``trainer: effort_finetune``:
      :func:`effort_finetune.guest.swaps.prepare`; the script goes on.
    * Anything else, or a file that was imported: nothing.

    Args:
        file: ``__file__`` of the script.
        name: Its ``__name__``.
    """
    # A worker that spawn started runs the script again under the second name.
    if name not in ("__main__", "__mp_main__"):
        return
    asked = read_asked(Path(os.path.abspath(file)), sys.argv[1:])
    if asked is None or not asked.is_ours:
        if asked is not None and name == "__main__":
            _refuse_our_flags(asked)
        return
    if name == "__mp_main__":
        from effort_finetune.guest.swaps import prepare_worker

        prepare_worker(asked)
    elif asked.wants_help:
        raise SystemExit(exit_code(lambda: _help(asked)))
    elif asked.is_whole_job:
        raise SystemExit(exit_code(lambda: _whole_job(asked), debug="--debug" in asked.argv))
    else:
        from effort_finetune.guest.swaps import prepare

        code = exit_code(lambda: prepare(asked), debug="--debug" in asked.argv)
        if code:
            raise SystemExit(code)


def _whole_job(asked: Asked) -> int:
    from effort_finetune.guest.whole_job import run

    return run(asked)


def _help(asked: Asked) -> int:
    from effort_finetune.guest.flags import help_text

    print(help_text(asked))
    return 0


def _refuse_our_flags(asked: Asked) -> None:
    """Ends a run of another detector that asks for what only ours has, naming what does have it."""
    if asked.mode == "test" and asked.flag("output_json") is not None:
        from effort_finetune.core.errors import UserError
        from effort_finetune.guest.host_script import option_names

        if "--output_json" in option_names(asked.script):
            return

        def refuse() -> int:
            raise UserError(
                "--output_json is for the detector effort_finetune",
                got=f"model_name {asked.tree.get('model_name')!r}",
                next_step="effort-finetune evaluate --detector_config YAML writes results of any detector",
            )

        raise SystemExit(exit_code(refuse))
