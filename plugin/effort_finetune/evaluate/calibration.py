"""Temperature, bias and thresholds fitted on validation videos, and the band in which a verdict is unsure.

Platt's logistic fit (1999) on the log-odds of the videos, with slope 1/temperature; thresholds by the ROC of
the same videos; the band by split conformal prediction with one quantile a class (Vovk 2012): of either class
at most a share ``error`` of new videos gets the wrong verdict, the others the right one or "unsure". The
split is that of training and validation videos. That temperature and bias come from the same validation
videos takes nothing from it: they keep the order, so the band is made of the raw scores' own quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

from effort_finetune.core.errors import UserError
from effort_finetune.core.metrics import binary_metrics
from effort_finetune.core.seeding import derive
from effort_finetune.core.weighted import FloatArray, IntArray
from effort_finetune.evaluate.intervals import clopper_pearson
from effort_finetune.weights.stored_calibration import StoredCalibration, log_odds

#: Fewer videos of a class than this make a calibration a guess; it is made, with a warning.
FEW_VIDEOS = 50
BINS = 15
FOLDS = 5


def fit(
    label: IntArray, prob: FloatArray, *, error: float = 0.1, cost: float | None = None,
    fitted_on: dict[str, Any] | None = None, warnings: Sequence[str] = (),
    features: Mapping[str, Any] | None = None,
) -> StoredCalibration:  # fmt: skip
    """Fits a calibration.

    Args:
        label: ``[V]``, 0 real, 1 fake, of videos that were not trained on.
        prob: ``[V]``, probability of fake.
        error: Error rate of the band, of each class.
        cost: What a real called fake costs, a missed fake costing 1; adds the threshold ``cost``.
        fitted_on: For the record.
        warnings: What is known to be wrong with the videos.
        features: Where their features lie.

    Raises:
        UserError: If a class is missing or a probability is no number.
    """
    fakes = int(label.sum())
    reals = len(label) - fakes
    if not reals or not fakes or not np.isfinite(prob).all():
        raise UserError(
            "calibrate", got=f"{reals} real and {fakes} fake videos", expected="finite scores of both classes"
        )
    odds = log_odds(prob)
    slope, bias = _logistic(odds, label)
    warnings = list(warnings)
    if min(reals, fakes) < FEW_VIDEOS:
        warnings.append(
            f"fitted on {reals} real and {fakes} fake videos: with fewer than {FEW_VIDEOS} of a class, "
            "temperature and thresholds are uncertain"
        )
    calibrated = np.asarray(special.expit(odds * slope + bias))
    thresholds = _thresholds(label, calibrated, cost)
    warnings += [
        f"no threshold for {name}: too few reals" for name, value in thresholds.items() if value is None
    ]
    band = _band(label, calibrated, error)
    if band is None:
        warnings.append(f"too few videos for a band of error rate {error:g}")
    about = {"real": reals, "fake": fakes, **(fitted_on or {})}
    errors = {
        name: called(label, calibrated, value) for name, value in thresholds.items() if value is not None
    }
    curves = {"raw": reliability(label, prob), "calibrated": reliability(label, calibrated)}
    return StoredCalibration(
        1 / slope, bias, thresholds, band, error, about, errors, curves, features,
        quality(label, prob), _left_out(label, prob), tuple(warnings),
    )  # fmt: skip


def quality(label: IntArray, prob: FloatArray) -> dict[str, float | None]:
    """Returns NLL, ECE and Brier score."""
    block = binary_metrics(label, prob)
    return {name: block[name] for name in ("nll", "ece", "brier")}


def called(label: IntArray, prob: FloatArray, threshold: float) -> dict[str, Any]:
    """Returns FPR and FNR at a threshold with their exact 95 % intervals; ``None`` without the class."""
    found: dict[str, Any] = {}
    for name, value, wrong in (("fpr", 0, prob > threshold), ("fnr", 1, prob <= threshold)):
        own = wrong[label == value]
        found[name] = float(own.mean()) if len(own) else None
        bounds = list(clopper_pearson(float(own.mean()), len(own))) if len(own) else None
        found[f"{name}_interval"] = bounds
    return found


def _left_out(label: IntArray, prob: FloatArray) -> dict[str, float | None]:
    """Quality of calibrated videos that the fit did not see: of five parts, each in turn is left out."""
    folds = min(FOLDS, int(label.sum()), int(np.sum(label == 0)))
    if folds < 2:
        return dict.fromkeys(("nll", "ece", "brier"))
    rng = np.random.default_rng(derive(0, "calibration folds", 0))
    fold = np.empty(len(label), dtype=np.int64)
    for value in (0, 1):
        own = np.flatnonzero(label == value)
        fold[rng.permutation(own)] = np.arange(len(own)) % folds
    odds, calibrated = log_odds(prob), np.empty(len(label))
    for number in range(folds):
        out = fold == number
        slope, bias = _logistic(odds[~out], label[~out])
        calibrated[out] = special.expit(odds[out] * slope + bias)
    return quality(label, calibrated)


def reliability(label: IntArray, prob: FloatArray, bins: int = BINS) -> list[dict[str, float]]:
    """Returns for each bin that holds a video: mean probability, share of fakes and number of videos."""
    index = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], prob, side="left")
    return [
        {
            "probability": float(prob[index == i].mean()),
            "share_of_fakes": float(label[index == i].mean()),
            "videos": int(np.sum(index == i)),
        }
        for i in range(bins)
        if np.any(index == i)
    ]


def _logistic(odds: FloatArray, label: IntArray) -> tuple[float, float]:
    """Slope and bias of the least NLL, the slope kept positive so that no order is turned round."""
    # Platt's targets: without them, separable videos would take the slope to infinity.
    fakes = label.sum()
    reals = len(label) - fakes
    target = np.where(label == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))

    def loss(parameters: FloatArray) -> float:
        z = odds * np.exp(parameters[0]) + parameters[1]
        return float(np.mean(np.logaddexp(0, z) - target * z))

    found = optimize.minimize(
        loss,
        np.zeros(2),
        method="L-BFGS-B",
        bounds=[(-6, 6), (-50, 50)],
        options={"ftol": 1e-14, "gtol": 1e-10},
    )
    return float(np.exp(found.x[0])), float(found.x[1])


def _thresholds(label: IntArray, prob: FloatArray, cost: float | None) -> dict[str, float | None]:
    """Thresholds half way between neighbouring scores; ``fpr_*`` never let more reals through than asked."""
    distinct = np.unique(prob)
    cuts = np.r_[0.0, (distinct[1:] + distinct[:-1]) / 2, distinct[-1]]
    reals, fakes = np.sort(prob[label == 0]), np.sort(prob[label == 1])
    fpr = 1 - np.searchsorted(reals, cuts, side="right") / len(reals)
    fnr = np.searchsorted(fakes, cuts, side="right") / len(fakes)
    found: dict[str, float | None] = {"balanced": float(cuts[np.argmin(fpr + fnr)])}
    for name, target in (("fpr_1pct", 0.01), ("fpr_5pct", 0.05)):
        enough = len(reals) >= round(1 / target)
        found[name] = float(cuts[np.argmax(fpr <= target + 1e-12)]) if enough else None
    if cost is not None:
        found["cost"] = float(cuts[np.argmin(cost * fpr * len(reals) + fnr * len(fakes))])
    return found


def _band(label: IntArray, prob: FloatArray, error: float) -> tuple[float, float] | None:
    """A real is called fake only above ``high``, a fake real only below ``low``; between is unsure."""
    reals, fakes = np.sort(prob[label == 0]), np.sort(prob[label == 1])
    high_rank = int(np.ceil((1 - error) * (len(reals) + 1))) - 1
    low_rank = int(np.floor(error * (len(fakes) + 1))) - 1
    if high_rank >= len(reals) or low_rank < 0:
        return None
    ends = sorted((float(fakes[low_rank]), float(reals[high_rank])))
    return ends[0], ends[1]
