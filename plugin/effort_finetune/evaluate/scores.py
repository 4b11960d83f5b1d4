"""Score files: one row a frame, every float in full precision, so that any metric can be recomputed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.files import atomic_write

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameRow
    from effort_finetune.evaluate.scoring import Scores

COLUMNS = ("dataset", "video", "frame", "label", "prob", "logit")


def write_scores(path: Path | str, rows: Sequence[FrameRow], scores: Scores) -> Path:
    """Writes the scored frames as CSV.

    Args:
        path: File to write.
        rows: All frames of the data set.
        scores: What was scored; frames that are missing have no row (the results list them).

    Returns:
        The path.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for index, label, prob, logit in zip(
                scores.index.tolist(),
                scores.label.tolist(),
                scores.prob.tolist(),
                scores.logit.tolist(),
                strict=True,
            ):
                row = rows[index]
                # repr is the shortest text that reads back as the same float64.
                writer.writerow([row.dataset, row.video, row.path, label, repr(prob), repr(logit)])

    return atomic_write(path, write)
