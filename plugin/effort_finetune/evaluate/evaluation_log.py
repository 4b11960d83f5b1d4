"""``evaluation.log``: what happened, line by line, beside the numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effort_finetune.core.escaping import VisibleFormatter
from effort_finetune.core.log_file import LogFile


@contextmanager
def evaluation_log(folder: Path | None) -> Iterator[None]:
    """Writes the plugin's log records, each batch included, to a file; below what is somebody else's in it.

    Warnings stand on the terminal as well, as they do where no log is written. The package's logger is left
    as it was found. Without a folder (of several processes only the first one has it) errors alone are said.
    """
    package = logging.getLogger("effort_finetune")
    level = package.level
    handler: logging.Handler = logging.NullHandler()
    terminal = logging.StreamHandler()
    terminal.setFormatter(VisibleFormatter("warning: %(message)s"))
    terminal.addFilter(lambda record: record.levelno == logging.WARNING)  # errors are the command's to print
    if folder is not None:
        handler = LogFile(folder / "evaluation.log", encoding="utf-8")
        handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    package.addHandler(handler)
    package.addHandler(terminal)
    package.setLevel(logging.ERROR if folder is None else logging.DEBUG)
    try:
        yield
    finally:
        package.setLevel(level)
        package.removeHandler(handler)
        package.removeHandler(terminal)
        handler.close()
