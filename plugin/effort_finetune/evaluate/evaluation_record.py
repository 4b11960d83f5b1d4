"""The folder an evaluation writes: taken by one process, emptied of the run before, filled at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import ensure_writable_dir, write_text
from effort_finetune.core.locks import hold
from effort_finetune.evaluate import results, table
from effort_finetune.evaluate.robustness_table import robustness_table
from effort_finetune.evaluate.run_folder import MEASUREMENT_FILES, SETTINGS_MARK, archive

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.frames import FrameDataset

logger = logging.getLogger(__name__)


@contextmanager
def output_folder(path: Path | str) -> Iterator[Path]:
    """Makes the folder, locks it for the block, and archives what an earlier run left in it.

    Raises:
        UserError: If it cannot be written, another process writes it, or it holds files of somebody else.
    """
    folder = ensure_writable_dir(path)
    with hold(folder, what="output folder"):
        if archived := archive(folder, MEASUREMENT_FILES):
            print(f"results of an earlier run in {folder} are now in {archived}")
        yield folder


def save(
    folder: Path, settings: Settings, document: dict[str, Any], frames: Mapping[str, FrameDataset]
) -> Path:
    """Writes settings, results and report, logs and prints the table; returns the results' path."""
    from effort_finetune.evaluate import html_report as report

    tree = yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True)
    write_text(folder / "settings.yaml", f"{SETTINGS_MARK} an evaluation\n{tree}")
    path = results.write(folder / "results.json", document)
    report.write_html(folder / "report.html", [path], frames=frames)
    summary = "\n\n".join(filter(None, [table.results_table(document), robustness_table(document)]))
    logger.info("summary\n%s", summary)
    print(summary)
    logger.info("results: %s", path)
    return path


def reason_of(error: BaseException) -> str:
    """One line for what ended the scoring."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted by the user"
    text = " ".join(str(error).split())
    return text if isinstance(error, (RunFailure, UserError)) else f"{type(error).__name__}: {text}"
