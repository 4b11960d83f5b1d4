"""Records as JSON lines and as CSV, each written as soon as it is there."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import for_csv, visible
from effort_finetune.core.files import free_name
from effort_finetune.predict.file_records import FileRecord

COLUMNS = (
    "file", "sha256", "status", "verdict", "score", "calibrated", "threshold", "faces", "frames_scored",
    "any_face", "any_face_false_positive_rate", "stability", "label", "reasons",
)  # fmt: skip


class RecordWriter:
    """Writes records into the files that were asked for; an earlier file is archived beside it.

    Args:
        lines: The file of JSON lines, or None.
        table: The CSV file, or None.

    Raises:
        UserError: A file cannot be written.
    """

    def __init__(self, lines: Path | None, table: Path | None) -> None:
        self._open: list[IO[str]] = []
        self._lines = self._opened(lines, "--jsonl")
        self._table = self._opened(table, "--csv")
        self._writer = None
        if self._table is not None:
            self._writer = csv.DictWriter(self._table, COLUMNS, lineterminator="\n")
            self._writer.writeheader()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._open:
            stream.close()

    def write(self, record: FileRecord) -> None:
        """Writes one record, so that a run that is killed keeps it."""
        if self._lines is not None:
            self._lines.write(json.dumps(record.to_dict(), allow_nan=False) + "\n")
        if self._writer is not None:
            self._writer.writerow(row_of(record))
        for stream in self._open:
            stream.flush()

    def _opened(self, path: Path | None, flag: str) -> IO[str] | None:
        if path is None:
            return None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                os.replace(path, free_name(path))
            stream = path.open("x", encoding="utf-8", newline="")
        except OSError as error:
            got = f"{visible(path)} ({error.strerror or error})"
            raise UserError(flag, got=got, expected="a file that can be written") from error
        self._open.append(stream)
        return stream


def row_of(record: FileRecord) -> Mapping[str, Any]:
    """Returns the row of a record; what is not known is empty."""
    any_face = record.any_face
    return {
        "file": for_csv(visible(record.file, limit=None)),
        "sha256": record.sha256,
        "status": record.status,
        "verdict": record.verdict,
        "score": record.score,
        "calibrated": record.calibrated,
        "threshold": record.threshold,
        "faces": len(record.faces),
        "frames_scored": len(record.faces[0].frames) if record.faces else 0,
        "any_face": any_face.prob if any_face else None,
        "any_face_false_positive_rate": any_face.false_positive_rate if any_face else None,
        "stability": record.stability.same if record.stability else None,
        "label": record.label,
        "reasons": for_csv(visible("; ".join(record.reasons), limit=None)),
    }
