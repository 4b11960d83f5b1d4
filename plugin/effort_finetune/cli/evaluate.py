"""``effort-finetune evaluate``: measure a checkpoint on test datasets of the host."""

from __future__ import annotations

import argparse
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.cli.options import add_settings_arguments, open_run
from effort_finetune.core.files import refuse_unwritable
from effort_finetune.core.launch import is_first, note_local_rank, read_launch
from effort_finetune.core.locks import refuse_held
from effort_finetune.data.corruptions import ALL, CORRUPTIONS, choose_corruptions
from effort_finetune.data.missing_inputs import refuse_missing

NAME = "evaluate"
HELP = (
    "Measure a checkpoint of any known layout on test datasets, per frame and per video: a table, "
    "results.json, evaluation.log, every score, and an HTML report."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the checkpoint, the output folder and one flag for every setting."""
    parser.add_argument(
        "--weights", type=Path, help="checkpoint to measure (default: pretrained_weights of the YAML)"
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("evaluation_results"),
        help="folder of everything that is written (default: %(default)s)",
    )
    parser.add_argument(
        "--robustness",
        nargs="*",
        metavar="NAME",
        help=f"measure corruptions, five levels each: {', '.join(CORRUPTIONS)} (the flag alone: all)",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, help="set by launchers older than torchrun")
    own = ("pretrained_weights", "output_dir", "resume", "robustness")
    add_settings_arguments(parser, command="evaluate", skip=own)


def run(args: argparse.Namespace, context: Context) -> int:
    """Evaluates and says where everything is.

    Raises:
        UserError: If anything asked for is wrong; nothing has been scored then.
        RunFailure: If it could not finish; what there is was saved.
    """
    corruptions = args.robustness if args.robustness != [] else [ALL]
    note_local_rank(args.local_rank)
    read_launch()
    host, settings = open_run(args, context, mode="test", robustness=corruptions)
    choose_corruptions(settings.robustness)
    chosen = args.weights or settings.pretrained_weights
    for note in refuse_missing(host, settings, which=("test_dataset",), weights=[chosen]):
        if is_first():
            print(note)
    refuse_unwritable(args.output_dir)
    if is_first():
        refuse_held(args.output_dir, what="output folder")

    from effort_finetune.evaluate.evaluation import evaluate  # torch and transformers, not needed for --help

    path = evaluate(settings, host, weights=args.weights, output_dir=args.output_dir, command=context.argv)
    if is_first():
        print(f"results: {path}\nreport:  {path.with_name('report.html')}")
    return 0
