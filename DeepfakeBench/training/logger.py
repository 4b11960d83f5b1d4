"""Logging to the console and to the run's log file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class RankFilter(logging.Filter):
    """Lets only one process of a distributed run speak.

    Args:
        rank: Rank of this process.
        speaker: Rank that may log.
    """

    def __init__(self, rank: int, speaker: int = 0) -> None:
        super().__init__()
        self.speaks = rank == speaker

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record when this process is the one that speaks."""
        return self.speaks


def create_logger(log_path: str | Path) -> logging.Logger:
    """Return a logger that writes to stdout and appends to ``log_path``, whose folder is made.

    A second call with the same path returns the same logger without doubling its lines.
    """
    path = Path(log_path).resolve()
    logger = logging.getLogger(f"deepfakebench:{path}")
    if not logger.handlers:
        path.parent.mkdir(parents=True, exist_ok=True)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        for handler in (logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stdout)):
            handler.setFormatter(logging.Formatter(FORMAT))
            logger.addHandler(handler)
    return logger
