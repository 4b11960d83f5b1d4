"""``effort-finetune import-scores``: scores of any detector as a results file."""

from __future__ import annotations

import argparse
import fnmatch
from dataclasses import replace
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.strict_json import read_json
from effort_finetune.core.verdict_rule import ABOVE, RULES
from effort_finetune.evaluate.foreign_scores import Columns, header_of, read_foreign

NAME = "import-scores"
HELP = (
    "Make a results.json of the scores of any detector, from a CSV with one row a frame, picture or video "
    "(gzip, too): the metrics, intervals and schema of evaluate, so that it can be compared, calibrated, "
    "reported and put on a leaderboard."
)
_PREFIX = "prob_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file, what its columns are called, the verdict's rule and where results go."""
    parser.add_argument("scores", type=Path, help="CSV with a header")
    names = parser.add_argument_group("columns (those named as in our own score files need no flag)")
    names.add_argument(
        "--prob_column", nargs="+", default=["prob"], metavar="C",
        help="probability of fake; of several (or prob_*), each is a detector of its own (default: prob)",
    )  # fmt: skip
    names.add_argument("--label_column", default="label", metavar="C", help="(default: %(default)s)")
    names.add_argument(
        "--video_column", nargs="+", default=(), metavar="C",
        help="columns that together name a video (default: video; without it each row is a sample)",
    )  # fmt: skip
    names.add_argument(
        "--video_pattern",
        metavar="REGEX",
        help="what of that name is the video: the first group, or the match",
    )
    names.add_argument("--frame_column", metavar="C", help="name of a frame (default: frame, if there)")
    names.add_argument(
        "--group_column", metavar="C", help="generator or manipulation (default: group, if there)"
    )
    names.add_argument("--dataset_column", metavar="C", help="dataset of a row (default: dataset, if there)")
    values = parser.add_argument_group("values")
    values.add_argument(
        "--real", nargs="+", default=(), metavar="WORD", help="labels that mean real, beside 0 and real"
    )
    values.add_argument(
        "--fake", nargs="+", default=(), metavar="WORD", help="labels that mean fake, beside 1 and fake"
    )
    values.add_argument("--logits", action="store_true", help="scores are log-odds of fake")
    values.add_argument(
        "--where",
        nargs="+",
        default=(),
        metavar="C=VALUE",
        help="rows that count: all these hold (* matches)",
    )
    values.add_argument("--threshold", type=float, default=0.5, help="of verdicts (default: %(default)s)")
    values.add_argument(
        "--rule", choices=RULES, default=ABOVE,
        help="fake if the score is above the threshold, or at least it (default: %(default)s)",
    )  # fmt: skip
    values.add_argument(
        "--max_missing_rate", type=float, default=0.01,
        help="largest share of rows without a score (default: %(default)s)",
    )  # fmt: skip
    result = parser.add_argument_group("result")
    result.add_argument("--detector", metavar="NAME", help="its name (default: the column's, or the file's)")
    result.add_argument("--dataset", metavar="NAME", help="name of rows that name none (default: the file's)")
    result.add_argument(
        "--output_dir", type=Path, default=Path("imported"),
        help="folder of the results; of several detectors one below it for each (default: %(default)s)",
    )  # fmt: skip
    result.add_argument(
        "--split", choices=("test", "val"), default="test",
        help="what the rows are; val to calibrate on (default: %(default)s)",
    )  # fmt: skip
    result.add_argument(
        "--calibration", type=Path, help="JSON of calibrate, applied beside the raw scores; nothing is fitted"
    )
    result.add_argument("--bootstrap_samples", type=int, default=1000, help="(default: %(default)s)")
    result.add_argument("--seed", type=int, default=1024, help="of the resamples (default: %(default)s)")


def run(args: argparse.Namespace, context: Context) -> int:
    """Imports each detector of the file and says where its results are.

    Raises:
        UserError: If the file or a flag is wrong; nothing has been written then.
        RunFailure: If a dataset lacks scores; what there is was written.
    """
    _check(args)
    wanted = _prob_columns(args.prob_column, header_of(args.scores))
    for flag, given in (("--detector", args.detector), ("--calibration", args.calibration)):
        if given is not None and len(wanted) > 1:
            raise UserError(
                flag, got=f"one for {len(wanted)} columns", expected="one column, or no such flag"
            )
    columns = Columns(
        wanted[0], args.label_column, tuple(args.video_column), args.video_pattern, args.frame_column,
        args.group_column, args.dataset_column, tuple(args.real), tuple(args.fake), args.logits,
        dict(_condition(text) for text in args.where),
    )  # fmt: skip
    stem = args.scores.name.removesuffix(".gz").removesuffix(".csv")
    found = {name: read_foreign(args.scores, replace(columns, prob=name)) for name in wanted}

    from effort_finetune.evaluate.imported_results import ImportJob, import_scores  # torch and scipy
    from effort_finetune.weights.stored_calibration import checked_calibration

    calibration = None
    if args.calibration is not None:
        calibration = checked_calibration(_json(args.calibration), visible(args.calibration))
    for name, rows in found.items():
        detector = args.detector or (stem if name == "prob" else name.removeprefix(_PREFIX))
        job = ImportJob(
            args.scores, detector, replace(columns, prob=name), args.dataset or stem, args.threshold,
            args.rule, args.max_missing_rate, args.bootstrap_samples, args.seed, args.split, calibration,
        )  # fmt: skip
        folder = args.output_dir / detector if len(wanted) > 1 else args.output_dir
        path = import_scores(job, rows, folder, command=context.argv)
        if path is None:
            print(f"{visible(detector)}: no row has a score, nothing is written")
        else:
            print(f"results of {visible(detector)}: {path}")
    return 0


def _prob_columns(asked: list[str], header: list[str]) -> list[str]:
    """Returns the columns that are asked for, patterns filled in."""
    found: dict[str, None] = {}
    for name in asked:
        matching = [name] if name in header else fnmatch.filter(header, name)
        found |= dict.fromkeys(matching or [name])  # one that is not there is refused by the reader
    return list(found)


def _json(path: Path) -> object:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError("--calibration", got=f"{path} ({error})", expected="the JSON of calibrate") from error


def _condition(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UserError("--where", got=repr(text), expected="COLUMN=VALUE")
    return name, value


def _check(args: argparse.Namespace) -> None:
    lowest = 0 if args.rule == ABOVE else 5e-324
    if not lowest <= args.threshold <= 1:
        raise UserError(
            "--threshold", got=str(args.threshold), expected=f"0 to 1, {args.rule} of which is fake"
        )
    if not 0 <= args.max_missing_rate <= 1:
        raise UserError("--max_missing_rate", got=str(args.max_missing_rate), expected="a share from 0 to 1")
    if not 0 <= args.bootstrap_samples <= 100_000:
        raise UserError("--bootstrap_samples", got=str(args.bootstrap_samples), expected="0 to 100000")
    if not 0 <= args.seed < 2**32:
        raise UserError("--seed", got=str(args.seed), expected="0 to 4294967295")
    for flag, name in (("--detector", args.detector), ("--dataset", args.dataset)):
        if name is not None and not name.strip():
            raise UserError(flag, got="an empty name", expected="a name")
