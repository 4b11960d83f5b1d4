"""Binary detection metrics; fake is the positive class, a number that cannot be computed is ``None``.

:data:`TABLE` is the one list of metrics. An entry is all there is to a metric: it appears in results, schema,
documentation, intervals, comparisons and reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from effort_finetune.core import metric_functions as f
from effort_finetune.core.metric_functions import ECE_BINS as ECE_BINS
from effort_finetune.core.weighted import FloatArray, IntArray, SortedScores

if TYPE_CHECKING:
    from torch import Tensor


INTERVAL_KINDS = ("delong", "logit", "exact", "bca")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Its key in results files, settings and flags.
        title: Its heading in tables.
        meaning: What it is, in a sentence for readers of a results file.
        function: Computes it for many rows of weights at once.
        interval: How its interval is made: ``delong`` (placement values, on the logit scale), ``logit``
            (jackknife, on the logit scale, or on the log scale where ``upper`` is ``None``), ``exact`` (of a
            share, at its effective sample size), ``bca`` (bootstrap), or the reason why it has none.
        lower_is_better: Whether a smaller value is the better one.
        needs: Classes that have to be there.
        undefined: Why it is undefined where both classes are there.
        fpr: The false positive rate it is read at; it needs 1/FPR reals.
        at_threshold: Whether the decision threshold enters it.
        upper: Largest value, ``None`` if there is none.
        column: Whether it is a column of the table of results, in the terminal, the report and a model card;
            every other one stands in results files and in the report's list of all metrics.
        format: How a value is written for people.
    """

    name: str
    title: str
    meaning: str
    function: f.Function
    interval: str = "bca"
    lower_is_better: bool = False
    needs: tuple[Literal["real", "fake"], ...] = ()
    undefined: str = "it has no value on these samples"
    fpr: float | None = None
    at_threshold: bool = False
    upper: float | None = 1.0
    column: bool = False
    format: str = ".4f"

    def text(self, value: float | None) -> str:
        """Returns a value for people, a dash for none."""
        return "-" if value is None else format(value, self.format)

    @property
    def direction(self) -> str:
        """``higher`` or ``lower``: which value is the better one."""
        return "lower" if self.lower_is_better else "higher"

    @property
    def has_interval(self) -> bool:
        """Whether there is a method for its interval."""
        return self.interval in INTERVAL_KINDS

    def reason(self, scores: SortedScores) -> str | None:
        """Returns why samples cannot give the metric a value, ``None`` where they can."""
        present = {"real": int(np.sum(scores.label == 0)), "fake": int(np.sum(scores.label == 1))}
        for name in ("fake", "real"):
            if name in self.needs and not present[name]:
                return f"no {name} samples"
        if self.fpr is not None:
            needed = math.ceil(1.0 / self.fpr - 1e-9)
            if present["real"] < needed:
                have = f"{present['real']} real samples cannot resolve FPR {self.fpr:g}"
                return f"{have} (at least {needed} needed)"
        return None


_BOTH: tuple[Literal["real", "fake"], ...] = ("real", "fake")
_BIASED = "the bootstrap of a calibration error is biased upwards"


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


TABLE: dict[str, Metric] = _table(
    Metric("auc", "AUC", "area under the ROC", f.auc, "delong", needs=_BOTH, column=True),
    Metric(
        "ap", "AP", "average precision", f.average_precision, "logit", needs=_BOTH,
        column=True,
    ),
    Metric(
        "eer", "EER", "rate at which FPR = 1 - TPR on the piecewise linear ROC", f.equal_error_rate,
        "exact", lower_is_better=True, needs=_BOTH, column=True,
    ),
    Metric(
        "acc", "ACC", "share of right verdicts",
        f.decision(lambda tn, fp, fn, tp: (tn + tp) / (tn + fp + fn + tp)),
        "exact", at_threshold=True, column=True,
    ),
    Metric(
        "acc_real", "ACC real", "share of reals called real",
        f.decision(lambda tn, fp, fn, tp: tn / (tn + fp)),
        "exact", needs=("real",), at_threshold=True, column=True,
    ),
    Metric(
        "acc_fake", "ACC fake", "share of fakes called fake",
        f.decision(lambda tn, fp, fn, tp: tp / (tp + fn)),
        "exact", needs=("fake",), at_threshold=True, column=True,
    ),
    Metric(
        "balanced_acc", "Balanced ACC", "mean of ACC real and ACC fake",
        f.decision(lambda tn, fp, fn, tp: (tn / (tn + fp) + tp / (tp + fn)) / 2),
        "exact", needs=_BOTH, at_threshold=True,
    ),
    Metric(
        "precision", "Precision", "share of fakes among those called fake",
        f.decision(lambda tn, fp, fn, tp: tp / (tp + fp)),
        "exact", undefined="no sample was called fake", at_threshold=True, column=True,
    ),
    Metric(
        "recall", "Recall", "share of fakes called fake",
        f.decision(lambda tn, fp, fn, tp: tp / (tp + fn)),
        "exact", needs=("fake",), at_threshold=True, column=True,
    ),
    Metric(
        "f1", "F1", "harmonic mean of precision and recall",
        f.decision(lambda tn, fp, fn, tp: 2 * tp / (2 * tp + fp + fn)),
        "exact", undefined="no sample is fake or was called fake", at_threshold=True, column=True,
    ),
    Metric(
        "tpr_at_fpr_1pct", "TPR at FPR 1 %", "TPR at FPR 1 %, linear between ROC points", f.tpr_at(0.01),
        needs=_BOTH, fpr=0.01,
    ),
    Metric(
        "tpr_at_fpr_5pct", "TPR at FPR 5 %", "TPR at FPR 5 %, linear between ROC points", f.tpr_at(0.05),
        needs=_BOTH, fpr=0.05,
    ),
    Metric(
        "ece", "ECE", f"expected calibration error, {ECE_BINS} equal-width bins of P(fake)",
        f.expected_calibration_error, _BIASED, lower_is_better=True,
    ),
    Metric("brier", "Brier", "mean squared error of P(fake)", f.brier, "logit", lower_is_better=True),
    Metric(
        "partial_auc", "pAUC", "area under the ROC up to FPR 10 %, standardised (McClish): chance .5, best 1",
        f.partial_auc(0.1), "logit", needs=_BOTH, fpr=0.1,
    ),
    Metric(
        "tpr_at_fpr_01pct", "TPR at FPR 0.1 %", "TPR at FPR 0.1 %, linear between ROC points",
        f.tpr_at(0.001),
        needs=_BOTH, fpr=0.001,
    ),
    Metric(
        "nll", "NLL", "mean negative log-likelihood of the true class in nats", f.negative_log_likelihood,
        "logit", lower_is_better=True, upper=None,
    ),
    Metric(
        "ece_real", "ECE real", "calibration error of the samples called real",
        f.calibration_of_called(False),
        _BIASED, lower_is_better=True, undefined="no sample was called real", at_threshold=True,
    ),
    Metric(
        "ece_fake", "ECE fake", "calibration error of the samples called fake",
        f.calibration_of_called(True),
        _BIASED, lower_is_better=True, undefined="no sample was called fake", at_threshold=True,
    ),
    Metric(
        "aurc", "AURC", "area under the risk-coverage curve: mean error rate among the more confident",
        f.area_under_risk_coverage, "logit", lower_is_better=True,
    ),
    Metric(
        "eer_attained", "EER attained",
        "lowest max(FPR, 1 - TPR) of one threshold, where scores are tied above EER",
        f.attained_error_rate, "its neighbour EER has one", lower_is_better=True, needs=_BOTH,
    ),
)  # fmt: skip
#: Every scalar of a metrics block, in the order in which it is written and printed.
METRICS = tuple(TABLE)
#: Metrics for which a smaller value is the better one.
LOWER_IS_BETTER = frozenset({"loss", *(name for name, metric in TABLE.items() if metric.lower_is_better)})


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
    y, p = as_arrays(label, prob)
    if reason := unusable(p):
        nothing = dict.fromkeys((*METRICS, "confusion"))
        return {**nothing, "null_reasons": dict.fromkeys(nothing, reason)}
    scores = sorted_scores(y, p, threshold=threshold)
    reasons = {name: reason for name, metric in TABLE.items() if (reason := metric.reason(scores))}
    found = scores.apply({name: TABLE[name].function for name in METRICS if name not in reasons})
    values: dict[str, Any] = dict.fromkeys(METRICS)
    for name in METRICS:
        if name in found and math.isnan(found[name][0]):
            reasons[name] = TABLE[name].undefined
        elif name in found:
            # Sums of areas can end an ulp outside.
            upper = TABLE[name].upper
            value = max(float(found[name][0]), 0.0)
            values[name] = value if upper is None else min(value, upper)
    (weighted,) = scores.weighted()
    values["confusion"] = {
        name: int(count[0]) for name, count in zip(("tn", "fp", "fn", "tp"), weighted.confusion, strict=True)
    }
    values["null_reasons"] = {name: reasons[name] for name in METRICS if name in reasons}
    return values


def sorted_scores(
    label: IntArray, prob: FloatArray, cluster: IntArray | None = None, *, threshold: float = 0.5
) -> SortedScores:
    """Returns samples ready for weighting; without clusters each sample is its own."""
    own = np.arange(len(label)) if cluster is None else cluster
    return SortedScores(label, prob, own, int(own.max(initial=-1)) + 1, threshold)


def roc_points(label: ArrayLike, prob: ArrayLike) -> tuple[FloatArray, FloatArray] | None:
    """Returns ``(fpr, tpr)`` of the ROC for plotting, or ``None`` where there is none."""
    from sklearn.metrics import roc_curve

    y, p = as_arrays(label, prob)
    if unusable(p) or len(np.unique(y)) < 2:
        return None
    fpr, tpr, _ = roc_curve(y, p)
    return fpr, tpr


def precision_recall_points(label: ArrayLike, prob: ArrayLike) -> tuple[FloatArray, FloatArray] | None:
    """Returns ``(precision, recall)`` of fakes for plotting, or ``None`` where there is no curve."""
    from sklearn.metrics import precision_recall_curve

    y, p = as_arrays(label, prob)
    if unusable(p) or len(np.unique(y)) < 2:
        return None
    precision, recall, _ = precision_recall_curve(y, p)
    return precision, recall


def as_arrays(label: ArrayLike, prob: ArrayLike) -> tuple[IntArray, FloatArray]:
    """Returns labels and probabilities as vectors.

    Raises:
        ValueError: If they differ in length or a label is neither 0 nor 1.
    """
    y, p = np.asarray(label, dtype=np.int64), np.asarray(prob, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"label and prob must be vectors of one length, got {y.shape} and {p.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {sorted(set(y.tolist()))}")
    return y, p


def unusable(p: FloatArray) -> str | None:
    """Returns why no metric can be computed of these probabilities, ``None`` where some can."""
    if len(p) == 0:
        return "no sample was scored"
    broken = int(np.sum(~np.isfinite(p)))
    return f"{broken} of {len(p)} probabilities are not finite" if broken else None


def batch_metrics(labels: Tensor, probabilities: Tensor) -> dict[str, float | None]:
    """Computes accuracy at 0.5, AUC, equal error rate and average precision of a batch.

    Args:
        labels: ``[B]``, 0 real and 1 fake.
        probabilities: ``[B]``, of fake.

    Returns:
        ``acc``, ``auc``, ``eer``, ``ap`` in 0 to 1; the last three are ``None`` for a batch of
        one class, for which they do not exist, and all of them for non-finite probabilities.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

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
