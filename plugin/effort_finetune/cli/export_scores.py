"""``effort-finetune export-scores``: the scores of a run as one CSV for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.evaluate.exported_scores import FIELDS, LEVELS, chosen_columns, write_exported

NAME = "export-scores"
HELP = (
    "Write the scores of a results.json as one CSV for other programs, in full precision: a row a frame or a "
    "video, columns by choice. import-scores reads it back to the same numbers."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run, the level, the columns and the file."""
    parser.add_argument("results", type=Path, help="results.json, or its folder")
    parser.add_argument(
        "--level", choices=LEVELS, default="frame", help="what a row is (default: %(default)s)"
    )
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="FIELD[=NAME]",
        help=f"columns and their names, of {', '.join(FIELDS)} (default: all, by these names)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("scores.csv"), help="file; .gz is packed (default: %(default)s)"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Writes the file and says how many rows it holds.

    Raises:
        UserError: If the run keeps no scores, or a column does not exist.
    """
    from effort_finetune.evaluate.compared_runs import read_run

    columns = chosen_columns(args.columns)
    path, rows = write_exported(args.output, read_run(args.results, args.results.name), args.level, columns)
    print(f"written: {path}, {rows} {args.level}s")
    return 0
