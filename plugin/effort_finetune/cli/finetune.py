"""``effort-finetune finetune``: adapt a checkpoint to a dataset of the host."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.cli.options import add_settings_arguments, open_run
from effort_finetune.core.errors import UserError
from effort_finetune.data.dataset_name import check_names
from effort_finetune.weights.first_look import look_at

NAME = "finetune"
HELP = "Fine-tune an Effort checkpoint, or plain CLIP, on datasets of the host, and test the result."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one flag for every setting; listed are those that a run reads."""
    add_settings_arguments(parser, command=NAME)


def run(args: argparse.Namespace, context: Context) -> int:
    """Trains, selects, tests and says where everything is.

    Raises:
        UserError: If the run cannot start.
        RunFailure: If it could not finish; what there is was saved.
    """
    host, settings = open_run(args, context, mode="train")
    if settings.resume is not None and not Path(settings.resume).exists():
        raise UserError(
            "--resume",
            got=f"{settings.resume}, which does not exist",
            expected="a run folder or its ckpt_last.pth",
        )
    for path in filter(None, (settings.resume, settings.pretrained_weights)):
        look_at(path)
    for note in check_names(host, settings, which=("train_dataset", "val_dataset", "test_dataset")):
        print(note)

    from effort_finetune.train.finetuning import finetune  # torch and transformers, not needed for --help

    outcome = finetune(settings, host, command=_as_typed(context))
    left = outcome.best_path if settings.save_ckpt else outcome.results_path
    print(outcome.published_path or left)
    return 0


def _as_typed(context: Context) -> tuple[str, ...]:
    """Returns the command line so that it can be typed again from the same folder."""
    if context.script is None:
        return context.argv
    return (f"python {shlex.quote(os.path.relpath(context.script))}", *context.argv[1:])
