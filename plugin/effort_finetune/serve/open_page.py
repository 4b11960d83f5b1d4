"""The page while it is open: its folder, rows, files and the thread that judges."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.locks import hold
from effort_finetune.core.version import __version__
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.heat_files import HeatMapper
from effort_finetune.predict.prediction import Predictor
from effort_finetune.serve.corrections import Corrections
from effort_finetune.serve.kept_files import KeptFiles
from effort_finetune.serve.page_limits import PageLimits
from effort_finetune.serve.page_row import UNFINISHED, Label, Row
from effort_finetune.serve.row_evidence import RowEvidence
from effort_finetune.serve.row_store import RowStore
from effort_finetune.serve.scoring_thread import ScoringThread


@dataclass
class OpenPage:
    """What the routes work on.

    Attributes:
        predictor: What judges.
        store: The rows.
        files: Their bytes.
        scoring: The thread that judges.
        corrections: Where wrongly judged files go.
        evidence: Made of a row when it is asked for.
        limits: What is taken at most.
        about: What judges, for people.
        start: Differs with every start of the server.
        arriving: Rows whose bytes are being received.
    """

    predictor: Predictor
    store: RowStore
    files: KeptFiles
    scoring: ScoringThread
    corrections: Corrections
    evidence: RowEvidence
    limits: PageLimits
    about: dict[str, Any]
    start: str = field(default_factory=lambda: secrets.token_hex(8))
    arriving: set[int] = field(default_factory=set)

    def announce(self, files: Sequence[tuple[str, int]], *, stability: bool) -> list[int]:
        """Makes rows for files that are about to be sent.

        Raises:
            UserError: If there are too many; a file that is too large has a row that says so.
        """
        waiting = self.store.count(*UNFINISHED)
        if waiting + len(files) > self.limits.unfinished:
            raise UserError(
                "too many files at once",
                got=f"{len(files)}, with {waiting} unfinished",
                expected=f"at most {self.limits.unfinished}",
                next_step="wait for them",
            )
        if self.store.count() + len(files) > self.limits.rows:
            raise UserError(
                "too many rows", expected=f"at most {self.limits.rows}", next_step="remove batches"
            )
        rows = self.store.add(files, stability=stability, about=self.about)
        for row, (_, size) in zip(rows, files, strict=True):
            if size > self.limits.file_bytes:
                note = f"too large: {size / 1e6:.0f} MB, at most {self.limits.file_bytes / 1e6:.0f} MB"
                self.store.change(row, state="refused", note=note)
        return rows

    def arrived(self, row: int) -> None:
        """The bytes of a file are here."""
        self.store.arrived(row)
        self.scoring.wake()

    def correct(self, row: Row, label: Label | None) -> Path | None:
        """Notes what a file is and puts it where it can be trained on; None takes that back.

        Returns:
            Where it lies now.

        Raises:
            UserError: If its bytes are gone, or nothing in it can be trained on.
        """
        file = self.files.path(row.id, row.name)
        if not row.kept or not file.is_file():
            raise UserError(
                "the file is not kept any more", next_step="drop it again, then correct its new row"
            )
        # A decoder that crashed once is not asked again.
        if row.record is not None and row.record.status == "unreadable":
            raise UserError("this file", got="it cannot be read", expected="a picture or a video")
        place = None
        if label is None:
            self.corrections.take_away(file)
        else:
            place = self.corrections.put(file, row.name, label)
        self.store.correct(row.id, label)
        return place

    def remove(self, batch: int) -> None:
        """Removes a batch with all that lies of it; what was corrected stays."""
        names = {row.id: row.name for row in self.store.rows(batch=batch)}
        for row in self.store.remove(batch):
            self.files.forget(row, names.get(row, ""))

    def remove_row(self, row: Row) -> None:
        """Removes one row with all that lies of it."""
        self.store.remove_row(row.id)
        self.files.forget(row.id, row.name)

    def record(self, row: Row) -> FileRecord | None:
        """Returns what is said of a row, of a refused one why; None where it is not finished."""
        if row.state != "refused":
            return row.labelled()
        rule = self.predictor.rule
        return FileRecord(
            row.name, None, "unreadable", "unsure", (row.note or "refused",), None, None, rule.threshold,
            rule.source, label=row.label,
        )  # fmt: skip


@contextmanager
def open_page(
    folder: Path,
    predictor: Predictor,
    *,
    corrections: Path | None = None,
    limits: PageLimits | None = None,
    heat: HeatMapper | None = None,
) -> Iterator[OpenPage]:
    """Opens a page's folder and begins to judge; at the end the files that were dropped are removed.

    Args:
        folder: Where rows and files lie; created.
        predictor: What judges.
        corrections: Where wrongly judged files go; by default ``corrections`` in the folder.
        limits: What is taken at most.
        heat: Makes maps of where the model looked; None shows none.

    Raises:
        UserError: If another page has the folder open, or it cannot be used.
    """
    limits = limits or PageLimits()
    with hold(folder, what="page folder", next_step="use the page that is open, or choose another --folder"):
        store = RowStore(folder)
        files = KeptFiles(folder, store, limits)
        scoring = ScoringThread(predictor, store, files, heat)
        page = OpenPage(
            predictor,
            store,
            files,
            scoring,
            Corrections(corrections or folder / "corrections", predictor),
            RowEvidence(predictor, files),
            limits,
            _about(predictor, heat),
        )
        scoring.start()
        try:
            yield page
        finally:
            ended = scoring.stop()
            files.clear()
            if ended:
                store.close()


def _about(predictor: Predictor, heat: HeatMapper | None) -> dict[str, Any]:
    report = predictor.checkpoint.load_report
    assert report is not None  # a predictor has weights
    return {
        "weights": Path(report.path).name,
        "sha256": report.sha256,
        "faces": predictor.faces.line(),
        "threshold": predictor.rule.threshold,
        "threshold_source": predictor.rule.source,
        "raw_threshold": predictor.rule.raw_threshold(),
        "calibrated": predictor.rule.temperature is not None,
        "device": str(next(predictor.model.parameters()).device),
        "heat": None if heat is None else heat.line(),
        "version": __version__,
    }
