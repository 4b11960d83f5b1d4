"""Video scores to calibrate on: of a results file, of a score file of ours, or of any CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.weighted import FloatArray, IntArray
from effort_finetune.evaluate.calibrated_block import kind_of
from effort_finetune.evaluate.score_file import ScoreFile, read_scores

_WORDS = {"0": 0, "real": 0, "1": 1, "fake": 1}


@dataclass(frozen=True)
class ValScores:
    """Videos with what is known of them.

    Attributes:
        label: ``int64[V]``, 0 real, 1 fake.
        prob: ``float64[V]``, probability of fake.
        datasets: Name to ``split``, videos of each class, ``kind`` and ``frames_sha256``, as far as known.
        warnings: What a user has to know of these scores.
    """

    label: IntArray
    prob: FloatArray
    datasets: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()

    def fitted_on(self) -> dict[str, Any]:
        """Returns the record of a calibration's videos."""
        return {"datasets": {name: dict(block) for name, block in self.datasets.items()}}


def joined(parts: list[ValScores]) -> ValScores:
    """Returns several sources as one."""
    return ValScores(
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.prob for part in parts]),
        {name: block for part in parts for name, block in part.datasets.items()},
        tuple(line for part in parts for line in part.warnings),
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
    return _of_scores(read_foreign_scores(path, columns), path.stem, {"split": "not stated"})


def _of_results(path: Path) -> ValScores:
    from effort_finetune.evaluate import results

    document = results.read(path)
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


def read_foreign_scores(path: Path, columns: Mapping[str, str]) -> ScoreFile:
    """Reads the scores of any detector from a CSV, one row a frame or a video.

    Args:
        path: The file.
        columns: Column of ``video``, ``label`` (0 or real, 1 or fake) and ``prob`` (of fake, 0 to 1).

    Raises:
        UserError: If a column is missing or a row holds something else; the line is named.
    """
    what = f"score file {path}"
    videos, labels, probs = [], [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            found = list(reader.fieldnames or ())
            if lacking := [name for name in columns.values() if name not in found]:
                raise UserError(
                    what, got=f"no column {visible(lacking[0])}", expected=f"one of {visible(str(found))}",
                    next_step="name them: --video_column, --label_column, --prob_column",
                )  # fmt: skip
            for row in reader:
                word, number = (row[columns[key]] for key in ("label", "prob"))
                label = _WORDS.get(str(word).strip().lower())
                prob = float(number)
                if label is None or not 0 <= prob <= 1:
                    raise UserError(
                        f"{what}, line {reader.line_num}",
                        got=f"label {visible(repr(word))}, probability {visible(repr(number))}",
                        expected="0, 1, real or fake, and a probability of fake from 0 to 1",
                    )
                videos.append(row[columns["video"]])
                labels.append(label)
                probs.append(prob)
    except (OSError, UnicodeDecodeError, ValueError, TypeError, csv.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(what, got=visible(error), expected="a CSV with a header") from error
    classes: dict[str, int] = {}
    for video, label in zip(videos, labels, strict=True):
        if classes.setdefault(video, label) != label:
            raise UserError(what, got=f"video {visible(video)} as real and as fake", expected="one label")
    return ScoreFile(
        tuple(videos), tuple(videos), np.array(labels, dtype=np.int64), np.array(probs, dtype=np.float64)
    )
