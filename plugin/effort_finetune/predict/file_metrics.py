"""How right the verdicts were, where the folders say what each file is."""

from __future__ import annotations

from typing import Any

import numpy as np

from effort_finetune.core.counted import counted
from effort_finetune.core.metrics import binary_metrics
from effort_finetune.predict.file_records import FileRecord

SHOWN = ("auc", "acc", "acc_real", "acc_fake", "precision", "recall", "f1")


class LabelledFiles:
    """Collects scores and labels, two numbers a file."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._scores: list[float] = []
        self._labels: list[int] = []
        self.without_label = 0
        self.without_score = 0
        self.unsure = 0

    def add(self, record: FileRecord) -> None:
        """Takes a record's score and label."""
        if record.label is None:
            self.without_label += 1
        elif record.score is None:
            self.without_score += 1
        else:
            self.unsure += record.verdict == "unsure"
            self._scores.append(record.score if record.calibrated is None else record.calibrated)
            self._labels.append(int(record.label == "fake"))

    def metrics(self) -> dict[str, Any]:
        """Returns the block of metrics over files, unsure ones by their side of the threshold."""
        label, prob = np.array(self._labels, dtype=np.int64), np.array(self._scores, dtype=np.float64)
        return binary_metrics(label, prob, threshold=self.threshold)

    def lines(self) -> list[str]:
        """Returns the metrics for people; with what was left out."""
        block = self.metrics()
        values = ", ".join(f"{n} {'-' if block[n] is None else format(block[n], '.4f')}" for n in SHOWN)
        left = f"{self.without_label} without a label, {self.without_score} without a score"
        return [
            f"{counted(len(self._scores), 'file')} with a label: {values}",
            f"left out: {left}; {self.unsure} unsure ones counted by their side of the threshold",
        ]
