"""Runs that are put side by side: results of this package, or the JSON that a host's ``test.py`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.strict_json import read_json
from effort_finetune.core.verdict_rule import threshold_of
from effort_finetune.evaluate import results
from effort_finetune.evaluate.level_samples import Level
from effort_finetune.evaluate.score_file import ScoreFile, read_scores
from effort_finetune.evaluate.video import grouped


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        label: Its name in tables.
        path: Its results file.
        document: What the file holds, in the shape of a results file; blocks may lack what ``test.py``
            does not know.
        by_host: Whether a host's script measured it, by the host's own rules.
    """

    label: str
    path: Path
    document: Mapping[str, Any]
    by_host: bool

    def value(self, dataset: str, level: str, metric: str) -> float | None:
        """Returns a number as the file states it, ``None`` where it states none."""
        block = self.document["datasets"].get(dataset) or {}
        if metric == "loss":
            return (block.get("loss") or {}).get("overall")
        return (block.get(level) or {}).get(metric)

    @property
    def threshold(self) -> float:
        """The threshold of its verdicts; a probability above it is called fake."""
        return threshold_of(self.document["protocol"])

    @cached_property
    def _scores(self) -> dict[str, ScoreFile]:
        return {}

    def scores(self, dataset: str) -> ScoreFile | None:
        """Returns a dataset's frame scores, ``None`` where the run kept none.

        Raises:
            UserError: If the file is missing or another one than the results were computed from.
        """
        block = self.document["datasets"].get(dataset) or {}
        if block.get("scores") is None or block.get("status") != "complete":
            return None
        if dataset not in self._scores:
            file = self.path.parent / block["scores"]
            self._scores[dataset] = read_scores(file, sha256=block.get("scores_sha256"))
        return self._scores[dataset]


def read_run(path: Path, label: str) -> Run:
    """Reads a run.

    Raises:
        UserError: If the file is neither a results file nor what ``test.py`` writes.
    """
    file = path / "results.json" if path.is_dir() else path
    try:
        text = read_json(file)
    except (OSError, ValueError):
        text = None  # results.read says what is wrong with it
    if isinstance(text, dict) and "schema_version" not in text and isinstance(text.get("datasets"), dict):
        return Run(label, file, _as_results(text, file), True)
    return Run(label, file, results.read(file), False)


def paired_levels(
    first: ScoreFile, second: ScoreFile, thresholds: tuple[float, float]
) -> tuple[dict[str, tuple[Level, Level]], list[str]]:
    """Returns the samples of two runs on the videos that both scored, by level, and what does not match.

    Args:
        first: Scores of the first run.
        second: Scores of the second.
        thresholds: Their decision thresholds.
    """
    labels = [dict(zip(s.video, s.label.tolist(), strict=True)) for s in (first, second)]
    common = [video for video, label in labels[0].items() if labels[1].get(video) == label]
    notes = []
    if other := sum(labels[1].get(video, label) != label for video, label in labels[0].items()):
        notes.append(f"{other} videos bear another label in the other run and are left out")
    if len(common) < max(map(len, labels)):
        notes.append(
            f"compared on the {len(common)} videos that both scored, of {len(labels[0])} and {len(labels[1])}"
        )
    number = {video: i for i, video in enumerate(common)}
    sides = [levels_on(s, number, t) for s, t in zip((first, second), thresholds, strict=True)]
    if common and sorted(_frames(first, number)) != sorted(_frames(second, number)):
        notes.append("other frames of the same videos")
    return {level: (sides[0][level], sides[1][level]) for level in ("frame", "video")}, notes


def _frames(scores: ScoreFile, number: Mapping[str, int]) -> list[str]:
    return [f.replace("\\", "/") for v, f in zip(scores.video, scores.frame, strict=True) if v in number]


def levels_on(scores: ScoreFile, number: Mapping[str, int], threshold: float) -> dict[str, Level]:
    """Returns a run's samples on chosen videos, ``frame`` and ``video``.

    Args:
        scores: Its scores of one dataset.
        number: The videos that count, each with its number from 0.
        threshold: Of its verdicts.
    """
    keep = np.array([video in number for video in scores.video], dtype=np.bool_)
    video = np.array([number[v] for v in scores.video if v in number], dtype=np.int64)
    label, prob = scores.label[keep], scores.prob[keep]
    _, fakes, mean = grouped(video, label, prob, len(number))
    return {
        "frame": Level(label, prob, video, threshold),
        "video": Level((fakes > 0).astype(np.int64), mean, np.arange(len(number)), threshold),
    }


def _as_results(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Brings the JSON of ``test.py`` into the shape of a results file, its numbers under their own rules."""
    datasets: dict[str, Any] = {}
    for name, values in document["datasets"].items():
        if not isinstance(values, Mapping):
            raise UserError(f"results file {path}", got=f"datasets.{name}: no object", expected="numbers")
        levels: dict[str, dict[str, Any]] = {"frame": {}, "video": {}}
        for key, value in values.items():
            level, _, metric = key.partition("_")
            if level == "video":
                levels["video"][metric] = value
            else:
                levels["frame"][key] = value
        datasets[name] = {"status": "complete", "warnings": [], "scores": None, **levels}
    return {
        "status": "complete",
        "reason": None,
        "datasets": datasets,
        "protocol": dict(document.get("protocol") or {}),
        "training": None,
        "checkpoint": {"path": document.get("weights_path"), "sha256": document.get("weights_sha256")},
        "computed_by": document.get("computed_by", "somebody who does not say how"),
    }
