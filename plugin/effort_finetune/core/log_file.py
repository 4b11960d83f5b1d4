"""A log that is never a reason to stop."""

from __future__ import annotations

import contextlib
import logging
import sys


class LogFile(logging.FileHandler):
    """Writes lines to a file; that it cannot (a full disk, a file system gone) is said once."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Says that a line could not be written, instead of printing a traceback for each."""
        if not self._said:
            self._said = True
            print(f"warning: {self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        """Closes the file, also where the disk refuses what is still to be written."""
        with contextlib.suppress(OSError):
            super().close()
