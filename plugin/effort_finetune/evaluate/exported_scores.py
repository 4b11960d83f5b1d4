"""The scores of a run as one CSV for other programs; import-scores reads it back to the same numbers."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import for_csv
from effort_finetune.core.files import atomic_write
from effort_finetune.core.verdict_rule import threshold_of
from effort_finetune.evaluate.compared_runs import Run

#: What a row can hold, in the order of the file.
FIELDS = ("dataset", "video", "frame", "label", "prob", "verdict")
LEVELS = ("frame", "video")


def write_exported(path: Path, run: Run, level: str, columns: Mapping[str, str]) -> tuple[Path, int]:
    """Writes the scores of all datasets of a run; a path that ends in ``.gz`` is packed.

    Args:
        path: The file.
        run: The run.
        level: ``frame`` for a row a frame, ``video`` for a row a video (the mean of its frames).
        columns: Field to the column's name, those of :data:`FIELDS` that are wanted.

    Returns:
        The path and the number of rows.

    Raises:
        UserError: If a dataset of the run keeps no scores, or its score file is another one.
    """
    rows = [row for name in run.document["datasets"] for row in _rows(run, name, level)]
    if not rows:
        raise UserError(
            f"results file {run.path}", got="no scores", expected="a complete run with score files"
        )
    kept = [field for field in FIELDS if field in columns and field in rows[0]]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([for_csv(columns[field]) for field in kept])
    writer.writerows([row[field] for field in kept] for row in rows)
    data = stream.getvalue().encode("utf-8")
    # mtime 0: equal scores are equal files.
    packed = gzip.compress(data, mtime=0) if path.suffix == ".gz" else data
    return atomic_write(path, lambda temporary: temporary.write_bytes(packed)), len(rows)


def chosen_columns(asked: Sequence[str]) -> dict[str, str]:
    """Returns field to column name of ``FIELD`` and ``FIELD=NAME`` words; all fields where none is named.

    Raises:
        UserError: If there is no such field, or two have one name.
    """
    columns: dict[str, str] = {}
    for word in asked or FIELDS:
        field, _, name = word.partition("=")
        if field not in FIELDS:
            raise UserError(
                "--columns", got=repr(word), expected=f"FIELD or FIELD=NAME, of {', '.join(FIELDS)}"
            )
        columns[field] = name or field
    if len(set(columns.values())) < len(columns):
        raise UserError("--columns", got="one name twice", expected="a name of its own for each")
    return columns


def _rows(run: Run, dataset: str, level: str) -> Iterator[dict[str, Any]]:
    scores = run.scores(dataset)
    if scores is None:
        raise UserError(f"results file {run.path}", got=f"no scores of {dataset}", expected="a complete run")
    threshold = threshold_of(run.document["protocol"])
    if level == "video":
        videos = list(dict.fromkeys(scores.video))
        label, prob = scores.by_video()
        frames: Sequence[str | None] = [None] * len(videos)
    else:
        videos, label, prob, frames = list(scores.video), scores.label, scores.prob, scores.frame
    for video, frame, y, p in zip(videos, frames, label.tolist(), np.asarray(prob).tolist(), strict=True):
        row = {"dataset": for_csv(dataset), "video": for_csv(video)}
        row |= {} if frame is None else {"frame": for_csv(frame)}
        verdict = "fake" if p > threshold else "real"
        yield {**row, "label": y, "prob": repr(p), "verdict": verdict}
