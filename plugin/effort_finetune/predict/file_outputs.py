"""What is written of a file beside its record: heat maps and evidence."""

from __future__ import annotations

from pathlib import Path

from effort_finetune.predict.evidence_files import Evidence
from effort_finetune.predict.file_crops import FileCrops
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.heat_files import HeatFiles, HeatMapper
from effort_finetune.predict.prediction import Predictor


class FileOutputs:
    """Writes what was asked for.

    Args:
        predictor: What judged the files.
        heatmap: Folder of heat maps; None writes none.
        evidence: Folder of evidence; None writes none.

    Raises:
        UserError: A folder cannot be made, or the weights are an ONNX file.
    """

    def __init__(self, predictor: Predictor, heatmap: Path | None, evidence: Path | None) -> None:
        self._mapper = HeatMapper(predictor) if heatmap or evidence else None
        self._heat = HeatFiles(self._mapper, heatmap) if self._mapper and heatmap else None
        self._evidence = Evidence(predictor, self._mapper, evidence) if self._mapper and evidence else None

    def lines(self) -> list[str]:
        """What a user should know of them."""
        return [self._mapper.line()] if self._mapper else []

    def write(self, found: FileCrops, record: FileRecord) -> tuple[FileRecord, list[str]]:
        """Writes them of one file.

        Returns:
            The record, which names the maps, and what an earlier evidence of the file said otherwise.
        """
        if self._heat:
            record = self._heat.write(found, record)
        return record, self._evidence.write(found, record) if self._evidence else []
