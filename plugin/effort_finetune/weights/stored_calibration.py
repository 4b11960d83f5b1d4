"""A calibration as weights files carry it, and how it is applied; it is fitted elsewhere, on val videos.

It has a hash of its own and changes no tensor: results of the same weights stay comparable whether these were
calibrated or not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible

FloatArray = NDArray[np.float64]
_SMALLEST = 1e-12
_DECIDING = ("temperature", "bias", "thresholds", "unsure")
_NAME_LENGTH, _MOST_THRESHOLDS = 40, 32


@dataclass(frozen=True)
class StoredCalibration:
    """A calibration of video scores and what it was fitted on.

    Attributes:
        temperature: The log-odds are divided by it.
        bias: Added to the log-odds after that.
        thresholds: Name to a threshold of the calibrated probability; fake is above it. ``None`` where the
            videos were too few for it.
        unsure: Lower and upper end of the band, calibrated; ``None`` where the videos were too few for it.
        error: The error rate the band was made for.
        fitted_on: ``real`` and ``fake`` videos, and ``datasets``: name to split, videos, protocol and sum of
            the frames.
        val_errors: For each threshold ``fpr`` and ``fnr`` of the videos it was found on, with exact 95 %
            intervals.
        reliability: ``raw`` and ``calibrated``: for each bin of these videos its mean ``probability``,
            ``share_of_fakes`` and number of ``videos``.
        features: Where the features of these videos lie
            (:class:`~effort_finetune.weights.val_features.ValFeatures`); ``None`` where nobody had them.
        before: NLL, ECE and Brier score of the videos as they came.
        after: The same of videos that were left out of the fit, each once.
        warnings: What a user has to know.
    """

    temperature: float
    bias: float
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    unsure: tuple[float, float] | None = None
    error: float | None = None
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    val_errors: Mapping[str, Any] = field(default_factory=dict)
    reliability: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] | None = None
    before: Mapping[str, float | None] = field(default_factory=dict)
    after: Mapping[str, float | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def apply(self, prob: FloatArray) -> FloatArray:
        """Returns calibrated probabilities of fake; their order is that of ``prob``."""
        return np.asarray(special.expit(log_odds(prob) / self.temperature + self.bias))

    @property
    def sha256(self) -> str:
        """Hash of what changes a verdict, not of the record around it."""
        document = asdict(self)
        deciding = {key: document[key] for key in _DECIDING}
        if self.features is not None:
            deciding["features"] = document["features"]
        text = json.dumps(deciding, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types only, with the hash."""
        document = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {**document, "sha256": self.sha256}


def log_odds(prob: FloatArray) -> FloatArray:
    """Returns the log-odds of probabilities, kept finite."""
    return np.asarray(special.logit(np.clip(prob, _SMALLEST, 1 - _SMALLEST)))


def checked_calibration(found: Any, what: str) -> StoredCalibration:
    """Reads a calibration; keys of later versions are left out.

    Args:
        found: A mapping, from a file anyone may have written.
        what: How to name the file in an error.

    Raises:
        UserError: If it is none, or was changed since its hash was written.
    """
    if not isinstance(found, Mapping):
        raise UserError(f"{what}: calibration", got=visible(repr(found)), expected="keys with values")
    _number(found.get("temperature"), f"{what}: temperature", 1e-4, 1e4)
    _number(found.get("bias"), f"{what}: bias", -100, 100)
    thresholds = found.get("thresholds", {})
    if not isinstance(thresholds, Mapping) or len(thresholds) > _MOST_THRESHOLDS:
        raise UserError(f"{what}: thresholds", got=visible(repr(thresholds)), expected="names with numbers")
    for name, value in thresholds.items():
        if not isinstance(name, str) or len(name) > _NAME_LENGTH:
            raise UserError(f"{what}: thresholds", got=visible(repr(name)), expected="a short name")
        if value is not None:
            _number(value, f"{what}: thresholds.{visible(name)}", 0, 1)
    values = {f.name: found[f.name] for f in fields(StoredCalibration) if found.get(f.name) is not None}
    if (unsure := values.get("unsure")) is not None:
        if not isinstance(unsure, (list, tuple)) or len(unsure) != 2:
            raise UserError(f"{what}: unsure", got=visible(repr(unsure)), expected="two numbers")
        for end in unsure:
            _number(end, f"{what}: unsure", 0, 1)
        values["unsure"] = (min(unsure), max(unsure))
    if "error" in values:
        _number(values["error"], f"{what}: error", 0, 1)
    for key in ("fitted_on", "val_errors", "reliability", "features", "before", "after"):
        if not isinstance(values.get(key, {}), Mapping):
            raise UserError(f"{what}: {key}", got=visible(repr(values[key])), expected="keys with values")
    said = values.get("warnings", ())
    if not isinstance(said, (list, tuple)) or not all(isinstance(one, str) for one in said):
        raise UserError(f"{what}: warnings", got=visible(repr(said)), expected="sentences")
    values["warnings"] = tuple(said)
    calibration = StoredCalibration(**values)
    if found.get("sha256") not in (None, calibration.sha256):
        raise UserError(
            f"{what}: calibration",
            got="other numbers than its hash was made of",
            expected="the calibration as it was written",
            next_step="effort-finetune calibrate",
        )
    return calibration


def calibration_of(report: Any) -> StoredCalibration | None:
    """Returns the calibration that loaded weights carry, ``None`` where they carry none.

    Args:
        report: A :class:`~effort_finetune.weights.loading.LoadReport`, or a host's detector's own.

    Raises:
        UserError: If it is damaged.
    """
    statement = getattr(report, "statement", None)
    if statement is None or statement.calibration is None:
        return None
    return checked_calibration(statement.calibration, f"weights {report.path}")


def _number(value: Any, what: str, low: float, high: float) -> None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not low <= value <= high:
        raise UserError(what, got=visible(repr(value)), expected=f"a number from {low:g} to {high:g}")
