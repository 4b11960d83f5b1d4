"""Score files: one row a frame, every float in full precision, so that any metric can be recomputed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from effort_finetune.errors import UserError
from effort_finetune.files import atomic_write

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameRow
    from effort_finetune.evaluate.scoring import Scores

COLUMNS = ("dataset", "video", "frame", "label", "prob", "logit")


def write_scores(path: Path | str, rows: Sequence[FrameRow], scores: Scores) -> Path:
    """Writes the scored frames as CSV.

    Args:
        path: File to write.
        rows: All frames of the dataset.
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


@dataclass(frozen=True)
class ScoreFile:
    """A score file read back.

    Attributes:
        video: Video of each frame, ``N`` identifiers.
        frame: Path of each frame as the index lists it, ``N`` paths.
        label: ``int64[N]``, 0 real, 1 fake.
        prob: ``float64[N]``, probability of fake.
    """

    video: tuple[str, ...]
    frame: tuple[str, ...]
    label: NDArray[np.int64]
    prob: NDArray[np.float64]

    def by_video(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Returns label and mean probability of each video, in order of first appearance."""
        number = {name: i for i, name in enumerate(dict.fromkeys(self.video))}
        index = np.array([number[name] for name in self.video], dtype=np.int64)
        frames = np.bincount(index, minlength=len(number))
        label = np.bincount(index, weights=self.label, minlength=len(number)) > 0
        return label.astype(np.int64), np.bincount(index, self.prob, minlength=len(number)) / frames


def read_scores(path: Path | str) -> ScoreFile:
    """Reads a score file.

    Raises:
        UserError: If it is missing or not a score file.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise UserError(
                    f"score file {path}", got=f"columns {reader.fieldnames}", expected=",".join(COLUMNS)
                )
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"score file {path}", got=str(error), expected="a file written by evaluate"
        ) from error
    return ScoreFile(
        video=tuple(row["video"] for row in rows),
        frame=tuple(row["frame"] for row in rows),
        label=np.array([int(row["label"]) for row in rows], dtype=np.int64),
        prob=np.array([float(row["prob"]) for row in rows], dtype=np.float64),
    )
