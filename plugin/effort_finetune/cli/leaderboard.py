"""``effort-finetune leaderboard``: detectors x datasets x seeds in one table, run where it is not there."""

from __future__ import annotations

import argparse
from pathlib import Path

from effort_finetune.cli.context import Context
from effort_finetune.cli.prepare_arguments import shard
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.files import ensure_writable_dir
from effort_finetune.core.launch import refuse_several
from effort_finetune.host import locate, open_host
from effort_finetune.studies.board_file import read_board

NAME = "leaderboard"
HELP = (
    "Measure detectors on datasets, with seeds and a fine-tuning for each where asked, and make one table of "
    "it: what is there is kept, what is missing is run, after a kill as well. docs/leaderboard.md describes "
    "the file."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file, what of it is run, and how it is shown."""
    parser.add_argument("file", type=Path, help="YAML: detectors, datasets, seeds")
    parser.add_argument(
        "--host", type=Path, help="DeepfakeBench checkout (default: the file's, else found by itself)"
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="folder of all that is written (default: the file's, else its name beside it)",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="I/N",
        help="run the I-th of N shares of what is missing",
    )
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="list what is there and what is missing, with the time it takes",
    )
    parser.add_argument(
        "--groups", action="store_true", help="a row for each generator or manipulation as well"
    )
    parser.add_argument(
        "--allow_mixed_protocols", action="store_true",
        help="cells that were measured by another protocol stand in the table, marked",
    )  # fmt: skip
    parser.add_argument(
        "--format", default="text", choices=("text", "markdown", "csv", "latex", "json", "html"),
        help="what is printed; all are written (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace, context: Context) -> int:
    """Runs what is missing, prints the table and writes it in every format.

    Raises:
        UserError: If the file, a setting, a dataset or weights are wrong, or protocols are mixed.
        RunFailure: If a run failed, or a signal came; what is done is kept.
    """
    refuse_several(NAME, "without torchrun; --shard I/N shares the cells out")
    asked = read_board(args.file)
    if args.groups:
        asked = asked.model_copy(update={"groups": True})
    host = open_host(locate(args.host or asked.host, script=context.script))

    from effort_finetune.studies.board_cells import Board, headings
    from effort_finetune.studies.board_runs import gathered, planned, run_missing, share_of

    folder = args.output_dir or asked.output_dir or args.file.with_suffix("")
    board = Board(args.file, asked, host, Path(folder).resolve(), headings(host, asked))
    groups = planned(board)
    if args.dry_run:
        from effort_finetune.studies.board_estimate import dry_run

        for line in dry_run(board, share_of(groups, args.shard)):
            print(line)
        return 0
    ensure_writable_dir(board.folder)
    failures = run_missing(
        board, share_of(groups, args.shard), command=context.argv, say=lambda line: print(line, flush=True)
    )
    cells = list(gathered(board, groups))
    missing = sum(path is None for _, path in cells)
    if missing and args.shard[1] > 1:
        print(f"{missing} cells are not there yet; without --shard the same command makes the table")
    else:
        from effort_finetune.studies.board_formats import rendered_board, write_board
        from effort_finetune.studies.board_table import document_of

        document = document_of(board, cells, allow_mixed=args.allow_mixed_protocols)
        paths = write_board(document, board.folder)
        print(rendered_board(document, args.format))
        print(f"written: {board.folder}/leaderboard.{{{','.join(path.suffix[1:] for path in paths)}}}")
    if failures:
        raise RunFailure("\n".join(failures))
    return 0
