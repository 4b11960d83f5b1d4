"""Score files: one row a frame, every float in full precision, so that any metric can be recomputed."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import for_csv, from_csv
from effort_finetune.core.files import atomic_write, require_regular, sha256_file
from effort_finetune.evaluate.video import grouped

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameRow
    from effort_finetune.evaluate.predictions import Scores

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
                names = map(for_csv, (row.dataset, row.video, row.path))
                writer.writerow([*names, label, repr(prob), repr(logit)])

    return atomic_write(path, write)


def frames_digest(rows: Iterable[FrameRow]) -> str:
    """Returns a SHA-256 over which frames of which videos were scored under which label, in any order."""
    lines = sorted(f"{row.video}\n{row.path}\n{row.label}\n".replace("\\", "/") for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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
        _, fakes, mean = grouped(index, self.label, self.prob, len(number))
        return (fakes > 0).astype(np.int64), mean


def read_scores(path: Path | str, *, sha256: str | None = None) -> ScoreFile:
    """Reads a score file.

    Args:
        path: The file.
        sha256: What the results that name it say of its content; ``None`` where they say nothing.

    Raises:
        UserError: If it is missing, not a score file or not the one that the results were computed with.
    """
    path = Path(path)
    try:
        require_regular(path)
        if sha256 is not None and sha256_file(path) != sha256:
            raise UserError(
                f"score file {path}",
                got="another content than the results that name it were computed from",
                expected=f"SHA-256 {sha256}",
                next_step="write both again with `effort-finetune evaluate`",
            )
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise UserError(
                    f"score file {path}", got=f"columns {reader.fieldnames}", expected=",".join(COLUMNS)
                )
            rows = list(reader)
            if any(None in row.values() for row in rows):
                raise ValueError("a row that is cut short")
        return ScoreFile(
            video=tuple(from_csv(row["video"]) for row in rows),
            frame=tuple(from_csv(row["frame"]) for row in rows),
            label=np.array([int(row["label"]) for row in rows], dtype=np.int64),
            prob=np.array([float(row["prob"]) for row in rows], dtype=np.float64),
        )
    except (OSError, UnicodeDecodeError, ValueError, TypeError, OverflowError, csv.Error) as error:
        raise UserError(
            f"score file {path}", got=str(error), expected="a file written by evaluate"
        ) from error
