"""``effort_finetune.predict``: files to records, from Python."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from effort_finetune.config import Settings
from effort_finetune.core.escaping import visible
from effort_finetune.core.files import refuse_unwritable
from effort_finetune.data.class_words import ClassWords
from effort_finetune.predict.file_outputs import FileOutputs
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.inputs import find_files
from effort_finetune.predict.prediction import Predictor, load_predictor

_LOG = logging.getLogger(__name__)


def predict(
    paths: Sequence[Path | str] | Path | str,
    *,
    weights: Path | str,
    settings: Settings | None = None,
    faces: str = "auto",
    predictor: Path | None = None,
    threshold: float | None = None,
    stability: bool = False,
    heatmap: Path | str | None = None,
    evidence: Path | str | None = None,
    labels: bool = False,
) -> Iterator[FileRecord]:
    """Judges pictures and videos; yields one record a file as it is ready.

    Args:
        paths: Files, folders or patterns.
        weights: A checkpoint, an adapter, a model folder with a trained head, or an exported ONNX file.
        settings: See :func:`effort_finetune.predict.prediction.load_predictor`.
        faces: ``auto`` (the weights' own recipe), a finder, ``cropped`` or ``whole``.
        predictor: A landmark model of dlib.
        threshold: In place of the one that the weights carry.
        stability: Score each file again as platforms would deliver it.
        heatmap: Folder that gets, of each face's most suspicious frame, a map of where the model looked.
        evidence: Folder that gets a page and its JSON about each file. What an earlier one said otherwise
            is logged as a warning.
        labels: Read off each file's folders whether it is real or fake.

    Raises:
        UserError: If a path does not exist, the weights cannot be used, a face finder is not there or a
            folder cannot be written; a file that cannot be read has a record.
    """
    maps, pages = (None if folder is None else Path(folder).expanduser() for folder in (heatmap, evidence))
    for name, place in (("heatmap", maps), ("evidence", pages)):
        if place is not None:
            refuse_unwritable(place, what=f"folder of {name}", flag=name)
    files = find_files([paths] if isinstance(paths, (str, Path)) else paths)
    loaded = load_predictor(weights, settings, faces=faces, predictor=predictor, threshold=threshold)
    outputs = FileOutputs(loaded, maps, pages)
    return _records(loaded, outputs, files, stability=stability, words=ClassWords() if labels else None)


def _records(
    loaded: Predictor,
    outputs: FileOutputs,
    files: Sequence[str],
    *,
    stability: bool,
    words: ClassWords | None,
) -> Iterator[FileRecord]:
    for found, judged in loaded.judged(files, stability=stability, labels=words):
        record, lines = outputs.write(found, judged)
        for line in lines:
            _LOG.warning("%s: evidence: %s", visible(record.file), line)
        yield record
