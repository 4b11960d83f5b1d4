"""Video scores to calibrate on: of a results file, of a score file of ours, or of any CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.weighted import FloatArray, IntArray
from effort_finetune.evaluate.foreign_scores import Columns, read_foreign
from effort_finetune.evaluate.score_file import ScoreFile, read_scores


@dataclass(frozen=True)
class ValScores:
    """Videos with what is known of them.

    Attributes:
        label: ``int64[V]``, 0 real, 1 fake.
        prob: ``float64[V]``, probability of fake.
        datasets: Name to ``split``, videos of each class, ``kind`` and ``frames_sha256``, as far as known.
        warnings: What a user has to know of these scores.
        features: ``float64[F, d]`` of their frames; None where they come from files.
        video: ``int64[F]``, which video a frame is of.
    """

    label: IntArray
    prob: FloatArray
    datasets: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()
    features: FloatArray | None = None
    video: IntArray | None = None

    def fitted_on(self) -> dict[str, Any]:
        """Returns the record of a calibration's videos."""
        return {"datasets": {name: dict(block) for name, block in self.datasets.items()}}


def joined(parts: list[ValScores]) -> ValScores:
    """Returns several sources as one."""
    features = video = None
    if all(part.features is not None for part in parts):
        features = np.concatenate([part.features for part in parts if part.features is not None])
        start, numbers = 0, []
        for part in parts:
            assert part.video is not None, "features come with their videos"
            numbers.append(part.video + start)
            start += int(part.video.max(initial=-1)) + 1
        video = np.concatenate(numbers)
    return ValScores(
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.prob for part in parts]),
        {name: block for part in parts for name, block in part.datasets.items()},
        tuple(line for part in parts for line in part.warnings),
        features,
        video,
    )


def of_file(path: Path, columns: Mapping[str, str] | None = None) -> ValScores:
    """Reads a results file (or its folder), a score file of ours, or a CSV with columns of other names.

    Args:
        path: The file.
        columns: Column of ``video``, ``label`` and ``prob``; ``None`` reads what ``evaluate`` writes.

    Raises:
        UserError: If it is none of these, is damaged, or a results file keeps no scores.
    """
    if path.is_dir() or path.suffix == ".json":
        return _of_results(path)
    if columns is None:
        return _of_scores(read_scores(path), path.stem, {"split": "not stated"})
    return _of_foreign(path, columns)


def _of_results(path: Path) -> ValScores:
    from effort_finetune.evaluate import results

    document = results.read(path)
    from effort_finetune.evaluate.calibrated_block import kind_of  # scipy, not needed to refuse a file

    folder = path if path.is_dir() else path.parent
    parts = []
    for name, block in document["datasets"].items():
        if block["status"] != "complete" or block["scores"] is None:
            raise UserError(f"results file {path}", got=f"no scores of {name}", expected="a complete run")
        scores = read_scores(folder / block["scores"], sha256=block.get("scores_sha256"))
        about = {
            "split": block["split"],
            "kind": kind_of(block["protocol"]),
            "frames_sha256": block.get("frames_sha256"),
        }
        warnings = [] if block["split"] == "val" else [_tainted(name, block["split"])]
        parts.append(_of_scores(scores, name, about, tuple(warnings)))
    if not parts:
        raise UserError(f"results file {path}", got="no dataset", expected="the scores of val videos")
    return joined(parts)


def _tainted(name: str, split: str) -> str:
    return f"these are {split} videos of {name}: what is fitted on them must not be reported of them"


def _of_scores(
    scores: ScoreFile, name: str, about: Mapping[str, Any], warnings: tuple[str, ...] = ()
) -> ValScores:
    label, prob = scores.by_video()
    sizes = {"real": int(np.sum(label == 0)), "fake": int(label.sum())}
    return ValScores(label, prob, {name: {**about, **sizes}}, warnings)


def _of_foreign(path: Path, columns: Mapping[str, str]) -> ValScores:
    """Reads the scores of any detector; rows without a score are left out with a warning."""
    named = Columns(prob=columns["prob"], label=columns["label"], video=(columns["video"],))
    rows = read_foreign(path, named).rows
    scored = [row for row in rows if row.prob is not None]
    warnings = (
        () if len(scored) == len(rows) else (f"{len(rows) - len(scored)} rows of {path} have no score",)
    )
    scores = ScoreFile(
        tuple(row.video for row in scored),
        tuple(row.frame for row in scored),
        np.array([row.label for row in scored], dtype=np.int64),
        np.array([row.prob for row in scored], dtype=np.float64),
    )
    return _of_scores(scores, path.stem, {"split": "not stated"}, warnings)
