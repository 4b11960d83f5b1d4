"""The curves of a run as a table that any program reads: ``curves.csv`` and ``hyperparameters.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from effort_finetune.core.escaping import for_csv
from effort_finetune.core.files import atomic_write

CURVES, SETTINGS = "curves.csv", "hyperparameters.csv"


class CsvFiles:
    """Two tables in the run folder: ``step, tag, value`` of every point; ``name, value`` of every setting.

    Args:
        folder: The run folder.
        settings: Its settings, flat.
        first_step: Step at which a resumed run goes on: points after it, left by a killed process, are taken
            out. ``None`` takes out nothing.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], first_step: int | None) -> None:
        self._folder, self._settings = folder, settings
        path = folder / CURVES
        if first_step is not None and path.is_file():
            _keep_before(path, first_step)
        fresh = not path.is_file() or path.stat().st_size == 0
        self._stream = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._stream, lineterminator="\n")
        if fresh:
            self._writer.writerow(("step", "tag", "value"))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes a row of each curve; who follows the file sees it at once."""
        self._writer.writerows((step, for_csv(tag), repr(float(value))) for tag, value in values.items())
        self._stream.flush()

    def close(self, last: Mapping[str, float]) -> None:
        """Writes the settings with the last value of each measured curve, and ends the files."""
        self._stream.close()

        def write(temporary: Path) -> None:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(("name", "value"))
                rows = {**self._settings, **{tag: repr(float(value)) for tag, value in last.items()}}
                writer.writerows((for_csv(name), for_csv(value)) for name, value in rows.items())

        atomic_write(self._folder / SETTINGS, write)


def _keep_before(path: Path, first_step: int) -> None:
    """Keeps what a run had written up to a step; a row that a kill cut short goes, too."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream) if len(row) == 3]
    kept = [row for row in rows if not row[0].isdigit() or int(row[0]) <= first_step]

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(kept)

    atomic_write(path, write)
