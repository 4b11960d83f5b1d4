"""``effort-finetune compare``: results of several runs side by side, and what the difference can decide."""

from __future__ import annotations

import argparse
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import UserError
from effort_finetune.core.metrics import TABLE

NAME = "compare"
HELP = (
    "Compare runs on the same videos, before and after fine-tuning for instance: difference, paired 95 %% "
    "interval, DeLong's p, Holm's correction, and where protocols differ or what taints a number."
)
METRICS = ("video_auc", "frame_auc", "video_eer", "video_acc", "video_f1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the results files, their names and the metrics."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        help="results.json, its folder, or the JSON of test.py",
    )
    parser.add_argument("--labels", nargs="+", help="a name for each (default: the names of their folders)")
    parser.add_argument(
        "--groups", nargs="+", help="a group for each, e.g. of seeds: mean and deviation of every group"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=list(METRICS),
        metavar="M",
        help="video_ or frame_ and one of loss, " + ", ".join(TABLE) + " (default: %(default)s)",
    )
    parser.add_argument(
        "--declared",
        default="video_auc",
        choices=("video_auc", "frame_auc"),
        help="the one metric that better and worse are said of (default: %(default)s)",
    )
    parser.add_argument(
        "--trained_on", nargs="+", default=None, metavar="NAME",
        help="the new datasets; all others stand in the table of forgetting (default: as the results say)",
    )  # fmt: skip
    parser.add_argument(
        "--difference", type=float, default=0.01,
        help="true difference for which the number of videos is worked out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--bootstrap_samples", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1024, help="of the resamples (default: %(default)s)")
    parser.add_argument(
        "--format",
        default="text",
        choices=("text", "markdown", "csv", "latex", "json"),
        help="(default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, help="file to write (default: the terminal)")


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints or writes the tables.

    Raises:
        UserError: If a file is no results file, a metric does not exist or the labels do not fit.
    """
    from effort_finetune.evaluate.compared_runs import read_run
    from effort_finetune.evaluate.dataset_results import parse_metric

    metrics = ["_".join(parse_metric(name, where="--metrics")) for name in args.metrics]
    labels = args.labels or unique_labels(args.results)
    for flag, names in (("--labels", labels), ("--groups", args.groups)):
        if names is not None and len(names) != len(args.results):
            raise UserError(
                flag, got=f"{len(names)} names", expected=f"{len(args.results)}, one a results file"
            )
    if not 0 < args.difference < 1:
        raise UserError("--difference", got=str(args.difference), expected="a number between 0 and 1")
    if not 0 <= args.bootstrap_samples <= 100_000:
        raise UserError("--bootstrap_samples", got=str(args.bootstrap_samples), expected="0 to 100000")
    runs = [read_run(path, label) for path, label in zip(args.results, labels, strict=True)]
    from effort_finetune.evaluate.comparison import compare  # scipy, not needed for what is checked above
    from effort_finetune.evaluate.comparison_text import document_of, rendered_comparison

    found = compare(
        runs, metrics, declared=args.declared, samples=args.bootstrap_samples, seed=args.seed,
        difference=args.difference,
    )  # fmt: skip
    document = document_of(found, runs, metrics, groups=args.groups, trained_on=args.trained_on)
    text = rendered_comparison(document, args.format)
    if args.output is None:
        print(text)
    else:
        from effort_finetune.core.files import write_text

        print(f"written: {write_text(args.output, text + chr(10))}")
    return 0


def unique_labels(paths: list[Path]) -> list[str]:
    """Returns the name of each file's folder; the whole path where two are equal."""
    folders = [(path if path.is_dir() else path.parent).resolve() for path in paths]
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [str(path) for path in paths]
