"""Evidence of a file in a folder: an HTML page to read and print, and the JSON behind it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import ensure_writable_dir, free_name, write_json, write_text
from effort_finetune.core.strict_json import read_json
from effort_finetune.predict.evidence_data import differences, evidence_of, run_block
from effort_finetune.predict.evidence_page import page_of
from effort_finetune.predict.file_crops import Cut, FileCrops
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.heat_files import HeatMapper, file_stem, most_suspicious
from effort_finetune.predict.prediction import Predictor


class Evidence:
    """Writes the evidence of judged files.

    Args:
        predictor: What judged them.
        mapper: Makes the heat maps.
        folder: Made where it is not there; an earlier evidence of a file is archived in it.

    Raises:
        UserError: The folder cannot be made.
    """

    def __init__(self, predictor: Predictor, mapper: HeatMapper, folder: Path) -> None:
        self.mapper, self.folder, self.rule = mapper, folder, predictor.rule
        self._run = run_block(predictor)
        ensure_writable_dir(folder, what="folder of evidence", flag="--evidence")

    def write(self, found: FileCrops, record: FileRecord) -> list[str]:
        """Writes page and JSON of one file.

        Returns:
            What an earlier evidence of the same file, which is archived, said otherwise.
        """
        shown = list(most_suspicious(found, record))
        maps = self.mapper.maps([cut.image for _, cut in shown])
        heat: list[tuple[int, Cut, np.ndarray]] = (
            []
            if maps is None
            else [(number, cut, map_) for (number, cut), map_ in zip(shown, maps, strict=True)]
        )
        made = datetime.now(UTC).isoformat(timespec="seconds")
        data = evidence_of(record, self._run, self.mapper.line(), made=made)
        page = page_of(found, record, data, heat, threshold=self.rule.raw_threshold())
        place = self.folder / f"{file_stem(record)}.json"
        lines = _archived(place, data) if place.exists() else []
        write_text(place.with_suffix(".html"), page)
        write_json(place, data)
        return lines


def _archived(place: Path, data: dict[str, Any]) -> list[str]:
    """Moves an earlier evidence away and tells what it said otherwise."""
    try:
        lines = differences(read_json(place), data)
    except (UserError, OSError, ValueError):
        lines = ["the earlier file of that name was no evidence"]
    for path in (place, place.with_suffix(".html")):
        if path.exists():
            os.replace(path, free_name(path))
    return lines
