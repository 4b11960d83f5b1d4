"""``effort-finetune compare``: results of several runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import UserError

NAME = "compare"
HELP = (
    "Put results side by side, before and after fine-tuning for instance, and say where protocols differ and "
    "what taints a number."
)
METRICS = ("video_auc", "frame_auc", "video_eer", "video_acc", "video_f1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the results files, their names and the metrics."""
    parser.add_argument("results", type=Path, nargs="+", help="results.json, or the folder that holds one")
    parser.add_argument("--labels", nargs="+", help="a name for each (default: the names of their folders)")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=list(METRICS),
        metavar="M",
        help="e.g. video_auc, frame_ap or eer, which is frame_eer (default: %(default)s)",
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the table.

    Raises:
        UserError: If a file is no results file, a metric does not exist or the labels do not fit.
    """
    from effort_finetune.evaluate import results, table
    from effort_finetune.evaluate.dataset_results import parse_metric

    metrics = ["_".join(parse_metric(name, where="--metrics")) for name in args.metrics]
    labels = args.labels or unique_labels(args.results)
    if len(labels) != len(args.results):
        raise UserError(
            "--labels", got=f"{len(labels)} names", expected=f"{len(args.results)}, one a results file"
        )
    documents = [results.read(path) for path in args.results]
    print(table.compare_table(documents, labels, metrics))
    for label, document in zip(labels, documents, strict=True):
        if document["status"] != "complete":
            print(f"{label} is not complete: {document['reason']}")
    for line in (*table.protocol_differences(documents, labels), *table.taints(documents, labels)):
        print(line)
    return 0


def unique_labels(paths: list[Path]) -> list[str]:
    """Returns the name of each file's folder; the whole path where two are equal."""
    folders = [(path if path.is_dir() else path.parent).resolve() for path in paths]
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [str(path) for path in paths]
