"""``effort-finetune report``: results as one HTML page."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.cli.context import Context
from effort_finetune.core.errors import UserError

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset

NAME = "report"
HELP = (
    "Write one self-contained HTML page of any number of results files: tables, what is decided, ROC, DET, "
    "precision and recall, reliability, thresholds, label groups, robustness, training, the worst mistakes, "
    "every video."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the results files and the page's path."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        help="results.json files or their folders; the first is compared with",
    )
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="default: %(default)s")
    parser.add_argument(
        "--labels",
        nargs="+",
        help="a name for each (default: of two before and after, of more their folders' names)",
    )
    parser.add_argument("--host", type=Path, help="DeepfakeBench checkout whose crops are shown")


def run(args: argparse.Namespace, context: Context) -> int:
    """Writes the page and prints its path.

    Raises:
        UserError: If a file is no results file or its score files are gone.
    """
    from effort_finetune.evaluate import results

    documents = [results.read(path) for path in args.results]
    from effort_finetune.evaluate import html_report as report  # scipy, not needed to refuse a file

    frames, unavailable = _open_frames(documents[-1], args.host, context)
    path = report.write_html(
        args.output, args.results,
        labels=args.labels or (), frames=frames, no_frames=unavailable, documents=documents,
    )  # fmt: skip
    print(path)
    return 0


def _open_frames(
    document: Mapping[str, Any], host_root: Path | None, context: Context
) -> tuple[dict[str, FrameDataset], dict[str, str]]:
    """Opens the datasets again, as the results' settings say; a page without crops needs none of them."""
    from effort_finetune.config import settings_from_config
    from effort_finetune.data.frames import open_frames
    from effort_finetune.host import locate, open_host

    frames: dict[str, FrameDataset] = {}
    unavailable: dict[str, str] = {}
    try:
        host = open_host(locate(host_root, script=context.script))
        settings = settings_from_config(document["settings"])
    except UserError as error:
        if host_root is not None:
            raise
        return {}, dict.fromkeys(document["datasets"], str(error))
    for name, block in document["datasets"].items():
        try:
            frames[name] = open_frames(host, settings, split=block["split"], names=[name])
        except UserError as error:
            unavailable[name] = str(error)
    return frames, unavailable
