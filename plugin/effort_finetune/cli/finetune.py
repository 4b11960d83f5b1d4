"""``effort-finetune finetune``: adapt a checkpoint to a dataset of the host."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from effort_finetune.cli.context import Context
from effort_finetune.cli.options import add_settings_arguments, open_run
from effort_finetune.core.files import refuse_unwritable
from effort_finetune.core.launch import ALONE_WITH_DDP, is_alone, is_first, note_local_rank, read_launch
from effort_finetune.core.locks import refuse_held
from effort_finetune.data.missing_inputs import TRAINING, refuse_missing
from effort_finetune.evaluate.dataset_results import parse_metric

NAME = "finetune"
HELP = "Fine-tune an Effort checkpoint, or plain CLIP, on datasets of the host, and test the result."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one flag for every setting; listed are those that a run reads."""
    parser.add_argument("--ddp", action="store_true", help="as hosts have it; torchrun says it already")
    parser.add_argument("--local_rank", "--local-rank", type=int, help="set by launchers older than torchrun")
    add_settings_arguments(parser, command=NAME)


def run(args: argparse.Namespace, context: Context) -> int:
    """Trains, selects, tests and says where everything is.

    Raises:
        UserError: If the run cannot start.
        RunFailure: If it could not finish; what there is was saved.
    """
    note_local_rank(args.local_rank)
    read_launch()
    if args.ddp and is_alone():
        print(ALONE_WITH_DDP, file=sys.stderr)
    host, settings = open_run(args, context, mode="train")
    for note in refuse_missing(host, settings, which=TRAINING, weights=[settings.pretrained_weights]):
        if is_first():
            print(note)
    parse_metric(settings.metric_scoring)
    if settings.output_dir is not None:
        refuse_unwritable(settings.output_dir)
        if is_first():
            refuse_held(settings.output_dir)

    from effort_finetune.train.finetuning import finetune  # torch and transformers, not needed for --help

    outcome = finetune(settings, host, command=_as_typed(context))
    left = outcome.best_path if settings.save_ckpt else outcome.results_path
    if is_first():
        print(outcome.published_path or left)
    return 0


def _as_typed(context: Context) -> tuple[str, ...]:
    """Returns the command line so that it can be typed again from the same folder."""
    if context.script is None:
        return context.argv
    return (f"python {shlex.quote(os.path.relpath(context.script))}", *context.argv[1:])
