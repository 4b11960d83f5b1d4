"""finetuning.log: every line timestamped, in the run folder and where the guide looks for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from effort_finetune.core.escaping import VisibleFormatter
from effort_finetune.core.log_file import LogFile
from effort_finetune.core.ranks import ALONE, Ranks

LOG_NAME = "finetuning.log"
LOG_OF_PROCESS = "finetuning.process{}.log"
#: ``extra=FILES_ONLY`` keeps a record off the terminal, where the command prints it in its own form.
FILES_ONLY = {"files_only": True}
_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class _TerminalHandler(logging.Handler):
    """Prints lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "files_only", False):
            tqdm.write(self.format(record), file=sys.stderr)


class _LineFormatter(VisibleFormatter):
    """Stamps every line of a record of several lines, so that each can be read alone."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        first, *rest = text.split("\n")
        prefix = first[: len(first) - len(record.getMessage().split("\n")[0])]
        return "\n".join([first, *(prefix + line for line in rest)])


@contextmanager
def run_logger(paths: Iterable[Path], ours: Ranks = ALONE) -> Iterator[logging.Logger]:
    """Opens the logger of a run and closes its files at the end.

    What the rest of the package warns of meanwhile stands there too.

    Of several processes each line says which one speaks. All but the first have only errors to say, each in
    a file of its own beside the first one's, which is there only then.

    Args:
        paths: Log files; each gets every line, after those of earlier runs.
        ours: The processes of the run.
    """
    if not ours.leads:
        paths = [p.with_name(LOG_OF_PROCESS.format(ours.rank)) for p in paths if p.parent.is_dir()][:1]
    logger, package = logging.getLogger("effort_finetune.train"), logging.getLogger("effort_finetune")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO if ours.leads else logging.ERROR)
    who = "" if ours.size == 1 else f"[process {ours.rank} of {ours.size}] "
    logger.propagate = False
    try:
        with _attached((logger, package), [_TerminalHandler(), *_files(paths, delay=not ours.leads)], who):
            yield logger
    finally:
        logger.setLevel(level)
        logger.propagate = propagate


@contextmanager
def logged_to(logger: logging.Logger, path: Path, *, command: str) -> Iterator[None]:
    """Lets a logger that somebody else made write a run's log, too; the command is its first line."""
    files = list(_files([path]))
    with _attached([logger], files):
        for file in files:  # whatever the logger's level
            file.handle(logging.makeLogRecord({"levelname": "INFO", "msg": f"command: {command}"}))
        yield


@contextmanager
def _attached(
    loggers: Iterable[logging.Logger], handlers: Iterable[logging.Handler], who: str = ""
) -> Iterator[None]:
    added = list(handlers)
    for handler in added:
        handler.setFormatter(_LineFormatter(_FORMAT.replace("%(message)s", f"{who}%(message)s")))
        for logger in loggers:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in added:
            for logger in loggers:
                logger.removeHandler(handler)
            handler.close()


def _files(paths: Iterable[Path], *, delay: bool = False) -> Iterator[logging.Handler]:
    for path in dict.fromkeys(Path(p).resolve() for p in paths):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield LogFile(path, encoding="utf-8", delay=delay)
        except OSError as error:
            print(f"warning: no log is written to {path}: {error}", file=sys.stderr)
