"""``effort-finetune why A B``: what two results differ in, and how much of the gap each difference makes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import UserError
from effort_finetune.core.torch_build import refuse_absent_device
from effort_finetune.host import locate, open_host
from effort_finetune.studies.published import published_files

if TYPE_CHECKING:
    from effort_finetune.evaluate.compared_runs import Run

NAME = "why"
PUBLISHED_ROUNDING = 5e-4  # the files hold three digits
HELP = (
    "Say why two results differ: list what was done differently, score A's data again with one difference "
    "put back at a time, and show each one's share of the gap and what they leave over. What B does not "
    "state is tried out."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the two results and what of them is explained."""
    parser.add_argument("first", type=Path, help="results.json of a run whose data and weights are at hand")
    parser.add_argument(
        "second", type=Path, nargs="?",
        help="another: a results.json, the JSON of test.py, or a JSON with no more than published numbers, "
        '{"datasets": {"NAME": {"video_auc": .95}}}',
    )  # fmt: skip
    parser.add_argument(
        "--published", metavar="NAME",
        help=f"published numbers in place of a second file: {', '.join(published_files())}, or a YAML",
    )  # fmt: skip
    parser.add_argument("--published_row", default="Effort", help="the detector there (default: %(default)s)")
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help="(default: all that both have)")
    parser.add_argument("--metric", default="video_auc", help="what is explained (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="A's checkpoint, if it was moved")
    parser.add_argument(
        "--checkpoints", type=Path, nargs="+", default=[], metavar="FILE",
        help="checkpoints that B may have been measured with, e.g. the last beside the best",
    )  # fmt: skip
    parser.add_argument(
        "--host", type=Path, help="DeepfakeBench checkout to work in (default: found by itself)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write beside what is printed")


def run(args: argparse.Namespace, context: Context) -> int:
    """Explains and prints, or says what is missing for it.

    Raises:
        UserError: If a file is no results file, nothing is in common, or A's weights or data are not there.
    """
    from effort_finetune.evaluate.compared_runs import read_run
    from effort_finetune.evaluate.dataset_results import parse_metric

    metric = "_".join(parse_metric(args.metric, where="--metric"))
    if (args.second is None) == (args.published is None):
        raise UserError(
            "why", got="one result" if args.second is None else "a second file and --published",
            expected="A and B, or A and --published NAME",
        )  # fmt: skip
    refuse_absent_device(args.device, "auto")
    first = read_run(args.first, "A")
    runs = first, read_run(args.second, "B") if args.second is not None else _published(args, first)
    names = _common(args.dataset, runs, metric)
    if runs[0].by_host:
        raise UserError(
            f"results file {args.first}",
            got="the JSON of test.py",
            expected="a results.json: its settings are needed",
        )
    for file in args.checkpoints:
        if not file.exists():
            raise UserError("--checkpoints", got=f"{file}, which does not exist", expected="a checkpoint")
    stated = (runs[0].document["checkpoint"] or {}).get("path")
    weights = args.weights or (Path(stated) if stated else None)
    if weights is None or not weights.exists():
        raise UserError(
            "A's weights", got=str(weights or "none stated"), expected="the file it was measured with",
            next_step="name it by --weights",
        )  # fmt: skip

    from effort_finetune.studies.explaining import explained
    from effort_finetune.studies.explanation import ROUNDING
    from effort_finetune.studies.explanation_text import explanation_text

    host = open_host(locate(args.host, script=context.script))
    documents = runs[0].document, runs[1].document
    found = [
        explained(
            documents,
            host,
            name,
            metric,
            weights,
            device=args.device,
            checkpoints=args.checkpoints,
            rounding=ROUNDING if args.published is None else PUBLISHED_ROUNDING,
        )
        for name in names
    ]
    print("\n\n".join(explanation_text(one) for one in found))
    if args.output is not None:
        from effort_finetune.core.files import write_json

        print(f"written: {write_json(args.output, {'explanations': [one.to_dict() for one in found]})}")
    return 0


def _published(args: argparse.Namespace, first: Run) -> Run:
    from effort_finetune.evaluate.compared_runs import Run
    from effort_finetune.studies.published import as_document, read_published

    found = read_published(args.published, Path())
    document = as_document(found, args.published_row, first.document["datasets"])
    return Run(found.title, Path(args.published), document, by_host=True)


def _common(asked: list[str] | None, runs: Any, metric: str) -> list[str]:
    level, _, name = metric.partition("_")
    both = [
        dataset
        for dataset in runs[0].document["datasets"]
        if all(run.value(dataset, level, name) is not None for run in runs)
    ]
    lacking = [dataset for dataset in asked or () if dataset not in both]
    if lacking or not both:
        raise UserError(
            "--dataset" if lacking else "why",
            got=", ".join(lacking) or f"no dataset with {metric} in both results",
            expected=f"one of {', '.join(both)}"
            if both
            else f"two results that state {metric} of one dataset",
        )
    return asked or both
