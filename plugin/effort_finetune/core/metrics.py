"""Binary detection metrics; fake is the positive class, a number that cannot be computed is ``None``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Compute = Callable[[IntArray, FloatArray, float], float]

#: Every scalar of a metrics block, in the order in which it is written and printed.
METRICS = (
    "auc",
    "ap",
    "eer",
    "acc",
    "acc_real",
    "acc_fake",
    "balanced_acc",
    "precision",
    "recall",
    "f1",
    "tpr_at_fpr_1pct",
    "tpr_at_fpr_5pct",
    "ece",
    "brier",
)
#: Metrics for which a smaller value is the better one.
LOWER_IS_BETTER = frozenset({"eer", "ece", "brier", "loss"})
#: The false positive rate each ``tpr_at_fpr_*`` metric is read at.
FPR_TARGETS = {"tpr_at_fpr_1pct": 0.01, "tpr_at_fpr_5pct": 0.05}
ECE_BINS = 15


class Undefined(Exception):
    """A metric has no value on these samples; the message is the reason that goes with ``null``."""


def binary_metrics(label: ArrayLike, prob: ArrayLike, *, threshold: float = 0.5) -> dict[str, Any]:
    """Computes every metric of a frame or video block.

    Args:
        label: ``[N]``, 0 for real and 1 for fake.
        prob: ``[N]``, probability of fake in [0, 1].
        threshold: A sample is called fake when ``prob > threshold``, as DeepfakeBench's
            ``get_test_metrics`` does; it is fixed beforehand, never fitted on these samples.

    Returns:
        One entry for each name of :data:`METRICS` (``float`` or ``None``), ``confusion``
        (``tn, fp, fn, tp`` or ``None``) and ``null_reasons``: metric name to the reason of its ``None``.

    Raises:
        ValueError: If the arrays differ in length or a label is neither 0 nor 1.
    """
    y, p = _as_arrays(label, prob)
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    unusable = _unusable(p)
    for name in METRICS:
        values[name] = None
        try:
            if unusable:
                raise Undefined(unusable)
            # Sums of areas can end an ulp above 1.
            values[name] = min(float(_COMPUTE[name](y, p, threshold)), 1.0)
        except Undefined as reason:
            reasons[name] = str(reason)
    values["confusion"] = None
    if unusable:
        reasons["confusion"] = unusable
    else:
        values["confusion"] = dict(zip(("tn", "fp", "fn", "tp"), _confusion(y, p, threshold), strict=True))
    values["null_reasons"] = reasons
    return values


def equal_error_rate(label: IntArray, prob: FloatArray) -> float:
    """Returns the rate at which false positives and false negatives are equal, in [0, 1].

    The ROC is taken as piecewise linear (the convex mixing of neighbouring thresholds), and
    FPR = 1 - TPR is solved on it exactly. DeepfakeBench instead takes the FPR of the nearest
    ROC point; that value is kept under ``host_metrics``.
    """
    fpr, tpr, _ = roc_curve(label, prob)
    # fpr + tpr - 1 grows strictly along the ROC from -1 to 1, so its zero is unique.
    return float(np.interp(0.0, fpr + tpr - 1.0, fpr))


def tpr_at_fpr(label: IntArray, prob: FloatArray, target: float) -> float:
    """Returns the true positive rate at a false positive rate, linear between ROC points.

    Raises:
        Undefined: If there are too few real samples for one false positive to be ``target``.
    """
    real = int(np.sum(label == 0))
    needed = int(np.ceil(1.0 / target - 1e-9))
    if real < needed:
        raise Undefined(f"{real} real samples cannot resolve FPR {target:g} (at least {needed} needed)")
    fpr, tpr, _ = roc_curve(label, prob)
    left = int(np.searchsorted(fpr, target, side="right")) - 1  # the highest point with FPR <= target
    if fpr[left] == target:
        return float(tpr[left])
    share = (target - fpr[left]) / (fpr[left + 1] - fpr[left])
    return float(tpr[left] + share * (tpr[left + 1] - tpr[left]))


def expected_calibration_error(label: IntArray, prob: FloatArray, bins: int = ECE_BINS) -> float:
    """Returns the ECE of P(fake): sum over equal-width bins of n_b/N * |mean label - mean probability|.

    Bins are [0, 1/15], (1/15, 2/15], ... of the probability of fake itself, not of the
    larger class probability, so that an error on either side of 0.5 keeps its sign in its own bin.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    index = np.searchsorted(edges, prob, side="left")
    gap = np.bincount(index, weights=label - prob, minlength=bins)
    return float(np.abs(gap).sum() / len(prob))


def roc_points(label: ArrayLike, prob: ArrayLike) -> tuple[FloatArray, FloatArray] | None:
    """Returns ``(fpr, tpr)`` of the ROC for plotting, or ``None`` where there is none."""
    y, p = _as_arrays(label, prob)
    if _unusable(p) or len(np.unique(y)) < 2:
        return None
    fpr, tpr, _ = roc_curve(y, p)
    return fpr, tpr


def _decision_metric(name: str, y: IntArray, p: FloatArray, threshold: float) -> float:
    tn, fp, fn, tp = _confusion(y, p, threshold)
    if name == "balanced_acc":
        return (_ratio(tn, tn + fp, "no real samples") + _ratio(tp, tp + fn, "no fake samples")) / 2
    part, whole, reason = {
        "acc": (tn + tp, len(y), "no samples"),
        "acc_real": (tn, tn + fp, "no real samples"),
        "acc_fake": (tp, tp + fn, "no fake samples"),
        "precision": (tp, tp + fp, "no sample was called fake"),
        "recall": (tp, tp + fn, "no fake samples"),
        "f1": (2 * tp, 2 * tp + fp + fn, "no sample is fake or was called fake"),
    }[name]
    return _ratio(part, whole, reason)


def _ratio(part: int, whole: int, reason: str) -> float:
    if whole == 0:
        raise Undefined(reason)
    return part / whole


def _confusion(y: IntArray, p: FloatArray, threshold: float) -> tuple[int, int, int, int]:
    tn, fp, fn, tp = confusion_matrix(y, (p > threshold).astype(int), labels=[0, 1]).ravel()
    return int(tn), int(fp), int(fn), int(tp)


def _as_arrays(label: ArrayLike, prob: ArrayLike) -> tuple[IntArray, FloatArray]:
    y, p = np.asarray(label, dtype=np.int64), np.asarray(prob, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"label and prob must be vectors of one length, got {y.shape} and {p.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {sorted(set(y.tolist()))}")
    return y, p


def _unusable(p: FloatArray) -> str | None:
    if len(p) == 0:
        return "no sample was scored"
    broken = int(np.sum(~np.isfinite(p)))
    return f"{broken} of {len(p)} probabilities are not finite" if broken else None


def _both_classes(y: IntArray, p: FloatArray) -> tuple[IntArray, FloatArray]:
    if not y.any():
        raise Undefined("no fake samples")
    if y.all():
        raise Undefined("no real samples")
    return y, p


def _ranking(function: Callable[..., float], *more: float) -> Compute:
    return lambda y, p, threshold: function(*_both_classes(y, p), *more)


def _decision(name: str) -> Compute:
    return lambda y, p, threshold: _decision_metric(name, y, p, threshold)


_COMPUTE: dict[str, Compute] = {
    "auc": _ranking(roc_auc_score),
    "ap": _ranking(average_precision_score),
    "eer": _ranking(equal_error_rate),
    **{name: _ranking(tpr_at_fpr, target) for name, target in FPR_TARGETS.items()},
    **{
        name: _decision(name)
        for name in ("acc", "acc_real", "acc_fake", "balanced_acc", "precision", "recall", "f1")
    },
    "ece": lambda y, p, threshold: expected_calibration_error(y, p),
    "brier": lambda y, p, threshold: float(np.mean((p - y) ** 2)),
}


def batch_metrics(labels: Tensor, probabilities: Tensor) -> dict[str, float | None]:
    """Computes accuracy at 0.5, AUC, equal error rate and average precision of a batch.

    Args:
        labels: ``[B]``, 0 real and 1 fake.
        probabilities: ``[B]``, of fake.

    Returns:
        ``acc``, ``auc``, ``eer``, ``ap`` in 0 to 1; the last three are ``None`` for a batch of
        one class, for which they do not exist, and all of them for non-finite probabilities.
    """
    y = labels.cpu().numpy()
    p = probabilities.detach().cpu().numpy()
    if not np.isfinite(p).all():
        return {"acc": None, "auc": None, "eer": None, "ap": None}
    accuracy = float(((p >= 0.5) == (y == 1)).mean())
    if len(np.unique(y)) < 2:
        return {"acc": accuracy, "auc": None, "eer": None, "ap": None}
    false_positive, true_positive, _ = roc_curve(y, p)
    crossing = int(np.nanargmin(np.abs(1 - true_positive - false_positive)))
    return {
        "acc": accuracy,
        "auc": float(roc_auc_score(y, p)),
        "eer": float((false_positive[crossing] + 1 - true_positive[crossing]) / 2),
        "ap": float(average_precision_score(y, p)),
    }
