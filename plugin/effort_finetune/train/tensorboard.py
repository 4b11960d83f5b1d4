"""The curves of a run in TensorBoard's event file."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams


class TensorBoard:
    """The event file of a run.

    Args:
        folder: The run folder.
        settings: Its settings, flat.
        first_step: Step at which a resumed run goes on: points after it, left by a killed process, are
            hidden. ``None`` hides nothing.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], first_step: int | None) -> None:
        self._settings = settings
        self._uncaught, threading.excepthook = threading.excepthook, self._pass_over
        # What the epoch before scored stands at that step itself.
        self._writer = SummaryWriter(str(folder), purge_step=None if first_step is None else first_step + 1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes a point of each curve."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def close(self, last: Mapping[str, float]) -> None:
        """Writes the table of settings with the last value of each measured curve, and ends the file."""
        try:
            if last:
                # add_hparams would put the table into a run of its own, beside the curves.
                for summary in hparams(dict(self._settings), dict(last)):
                    self._writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]
            self._writer.close()
        finally:
            threading.excepthook = self._uncaught

    def _pass_over(self, error: threading.ExceptHookArgs) -> None:
        """The writer's thread prints its traceback and raises again at the next point, where it is said."""
        if not type(error.thread).__module__.startswith("tensorboard."):
            self._uncaught(error)
