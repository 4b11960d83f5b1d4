"""What one detector said of the samples of a level, frames or videos."""

from __future__ import annotations

from dataclasses import dataclass

from effort_finetune.core.metrics import sorted_scores
from effort_finetune.core.weighted import FloatArray, IntArray, SortedScores


@dataclass(frozen=True)
class Level:
    """Samples of one detector at one level.

    Attributes:
        label: ``int64[N]``, 0 real, 1 fake.
        prob: ``float64[N]``, probability of fake.
        video: ``int64[N]``, the video of each sample, numbered as for the other detector.
        threshold: The detector's own decision threshold.
    """

    label: IntArray
    prob: FloatArray
    video: IntArray
    threshold: float

    def sorted(self) -> SortedScores:
        """Returns the samples ready for weighting."""
        return sorted_scores(self.label, self.prob, self.video, threshold=self.threshold)
