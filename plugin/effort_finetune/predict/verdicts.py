"""From a probability to a verdict: the thresholds that the weights carry, and what makes it unsure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effort_finetune.predict.file_records import Verdict
from effort_finetune.weights.stored_calibration import FloatArray
from effort_finetune.weights.val_features import ValFeatures, checked_features

#: Without a calibration's band: so near to the threshold a verdict is unsure.
NEAR = 0.05
#: A video of which fewer frames were scored gives no verdict.
FEW_FRAMES = 4
#: Fewer deliveries with the same verdict make it unsure.
STEADY = 0.75
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Rule:
    """How probabilities become verdicts in one run.

    Attributes:
        threshold: Above it a face is called fake; of the calibrated probability where there is a calibration.
        source: Where it comes from.
        temperature: The log-odds are divided by it; None without a calibration.
        bias: Added after that.
        band: In between a verdict is unsure; None: within ``NEAR`` of the threshold.
        any_threshold: Threshold and false positive rate on val of one face, for files of several; None where
            the weights state none.
        features: Where the features of the validation set lie; None where the weights do not keep them.
    """

    threshold: float
    source: str
    temperature: float | None = None
    bias: float = 0.0
    band: tuple[float, float] | None = None
    any_threshold: tuple[float, float] | None = None
    features: ValFeatures | None = None

    def calibrated(self, prob: float) -> float | None:
        """Returns the calibrated probability; None without a calibration."""
        if self.temperature is None:
            return None
        inside = min(max(prob, _SMALLEST), 1 - _SMALLEST)
        odds = math.log(inside / (1 - inside)) / self.temperature + self.bias
        return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))

    def raw_threshold(self) -> float:
        """Returns the threshold as a probability before any calibration."""
        if self.temperature is None:
            return self.threshold
        inside = min(max(self.threshold, _SMALLEST), 1 - _SMALLEST)
        odds = (math.log(inside / (1 - inside)) - self.bias) * self.temperature
        return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))

    def decided(self, prob: float) -> float:
        """Returns the number that the threshold is compared with."""
        found = self.calibrated(prob)
        return prob if found is None else found

    def says_fake(self, prob: float) -> bool:
        """Tells the side of the threshold, sure or not."""
        return self.decided(prob) > self.threshold

    def farness(self, features: FloatArray, *, video: bool) -> float | None:
        """Returns how far a face's frames, ``[N, d]``, lie from the validation set; 95 % of it is below 1."""
        if self.features is None:
            return None
        limit = self.features.video_limit if video else self.features.frame_limit
        return float(self.features.distance(features).mean() / limit)

    def verdict(
        self, prob: float, *, frames: int, video: bool, distance: float | None = None
    ) -> tuple[Verdict, tuple[str, ...]]:
        """Returns the verdict of one face and the reasons where it is unsure."""
        reasons = []
        value = self.decided(prob)
        if self.band is not None and self.band[0] <= value <= self.band[1]:
            reasons.append(f"near the threshold: between {self.band[0]:.3f} and {self.band[1]:.3f}")
        elif self.band is None and abs(value - self.threshold) < NEAR:
            reasons.append(f"near the threshold: within {NEAR} of {self.threshold:.3f}")
        if video and frames < FEW_FRAMES:
            reasons.append(f"few frames: {frames} of a video, at least {FEW_FRAMES} needed")
        if distance is not None and distance > 1:
            reasons.append(
                f"far from the validation set: {distance:.2f} times what 95 % of its videos stay under"
            )
        if reasons:
            return "unsure", tuple(reasons)
        return ("fake" if self.says_fake(prob) else "real"), ()


def rule_of(calibration: Mapping[str, Any] | None, threshold: float | None) -> Rule:
    """Makes the rule of a run.

    Args:
        calibration: What the weights carry, as ``calibrate`` writes it.
        threshold: Given by hand; wins.
    """
    if calibration is None:
        return Rule(0.5, "the default, since the weights carry no threshold") if threshold is None else Rule(
            threshold, "given by hand"
        )  # fmt: skip
    temperature, bias = float(calibration["temperature"]), float(calibration["bias"])
    thresholds = calibration.get("thresholds") or {}
    found = thresholds.get("fpr_5pct")
    several = None if found is None or threshold is not None else (float(found), 0.05)
    band = calibration.get("unsure")
    between = None if band is None or threshold is not None else (float(band[0]), float(band[1]))
    balanced = thresholds.get("balanced")
    kept = calibration.get("features")
    features = None if kept is None else checked_features(kept, "calibration")
    if threshold is not None:
        return Rule(threshold, "given by hand", temperature, bias, features=features)
    source, value = "0.5, calibrated", 0.5
    if balanced is not None:
        source, value = "the weights' own, balanced on val", float(balanced)
    return Rule(value, source, temperature, bias, between, several, features)
