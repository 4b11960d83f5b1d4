"""Evidence of a row, made when it is asked for: the page and the JSON that ``predict --evidence`` writes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from effort_finetune.core.errors import UserError
from effort_finetune.predict.evidence_files import Evidence
from effort_finetune.predict.heat_files import HeatMapper
from effort_finetune.predict.prediction import Predictor
from effort_finetune.serve.kept_files import KeptFiles
from effort_finetune.serve.page_row import Row


class RowEvidence:
    """Makes the evidence of rows, once each; it stays with their pictures.

    Args:
        predictor: What judges.
        files: Where the bytes and pictures of rows lie.
    """

    def __init__(self, predictor: Predictor, files: KeptFiles) -> None:
        self._predictor, self._files = predictor, files

    def made(self, row: Row) -> dict[str, Path]:
        """Returns the files that were made, by suffix; empty before."""
        folder = self._files.pictures(row.id) / "evidence"
        return {path.suffix[1:]: path for path in folder.glob("*.*")} if folder.is_dir() else {}

    def can_be_had(self, row: Row) -> bool:
        """Tells whether it is there or can be made."""
        return row.state == "done" and (row.kept or bool(self.made(row)))

    def make(self, row: Row, *, stability: bool) -> dict[str, Path]:
        """Judges the file once more and writes its evidence; in the thread that judges alone.

        Raises:
            UserError: If the bytes of the file are gone.
        """
        if found := self.made(row):
            return found
        path = self._files.path(row.id, row.name)
        if not row.kept or not path.is_file():
            raise UserError(
                "the file is not kept any more",
                next_step="drop it again, then ask for its new row's evidence",
            )
        folder = self._files.pictures(row.id) / "evidence"
        beside = folder.with_name("evidence_being_made")
        shutil.rmtree(beside, ignore_errors=True)
        evidence = Evidence(self._predictor, HeatMapper(self._predictor), beside)
        for crops, record in self._predictor.judged([str(path)], stability=stability):
            evidence.write(crops, replace(record, file=row.name, label=row.label))
        beside.rename(folder)
        return self.made(row)
