"""What the scores of a dataset look like: ROC, DET, precision and recall, histogram, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from effort_finetune.core.metrics import precision_recall_points, roc_points
from effort_finetune.core.weighted import FloatArray, IntArray
from effort_finetune.evaluate.calibration import reliability
from effort_finetune.evaluate.svg import Axis, Plot, colour, linear, share

BINS = 40
#: Operating points that a legend names.
MOST_NAMED = 6
#: Ticks and ends of a DET curve, whose axes are the normal quantiles of the error rates (Martin et al. 1997).
_RATES = (0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
_DET = tuple((rate, f"{rate:.1%}" if rate < 0.01 else f"{rate:.0%}") for rate in _RATES)


@dataclass(frozen=True)
class Curve:
    """The scores of one run at one level; ``run`` chooses the colour, curves of frames are dotted."""

    name: str
    run: int
    level: str
    label: IntArray
    prob: FloatArray
    auc: float | None

    @property
    def kind(self) -> str:
        """Its CSS classes."""
        return f"{colour(self.run)} frame" if self.level == "frame" else colour(self.run)

    @property
    def words(self) -> str:
        """Its name in a legend."""
        auc = "no AUC" if self.auc is None else f"AUC {self.auc:.3f}"
        return f"{self.name[:24]}, {self.level}s: {auc}"


@dataclass(frozen=True)
class OperatingPoint:
    """Error rates at a threshold of a run."""

    name: str
    run: int
    fpr: float
    fnr: float


def roc_svg(curves: Sequence[Curve], points: Sequence[OperatingPoint] = ()) -> str | None:
    """Draws ROC curves, with the operating points on those of videos; ``None`` where no curve exists."""
    found = [(curve, roc_points(curve.label, curve.prob)) for curve in curves]
    if all(rates is None for _, rates in found):
        return None
    plot = Plot("ROC", _about(curves), share("false positive rate"), share("true positive rate"))
    plot.diagonal()
    for curve, rates in found:
        if rates is not None:
            plot.line(*rates, curve.kind, curve.words)
    for point in points:
        plot.dots([point.fpr], [1 - point.fnr], f"{colour(point.run)} at")
    return plot.svg()


def det_svg(curves: Sequence[Curve], points: Sequence[OperatingPoint] = ()) -> str | None:
    """Draws DET curves of videos with the operating points; ``None`` where none exists."""
    found = [(curve, roc_points(curve.label, curve.prob)) for curve in curves if curve.level == "video"]
    if all(rates is None for _, rates in found):
        return None
    axes = [_normal(f"{name} (normal scale)") for name in ("false positive rate", "false negative rate")]
    plot = Plot("DET: the lower left corner is best", _about(curves), *axes)
    plot.diagonal()
    for curve, rates in found:
        if rates is not None:
            plot.line(rates[0], 1 - rates[1], curve.kind, curve.name)
    for point in points:
        plot.dots([point.fpr], [point.fnr], f"{colour(point.run)} at", _at(point, len(points)), sizes=4)
    return plot.svg()


def precision_recall_svg(curves: Sequence[Curve]) -> str | None:
    """Draws precision against recall of videos, with the precision of chance; ``None`` where none exists."""
    videos = [curve for curve in curves if curve.level == "video"]
    found = [(curve, precision_recall_points(curve.label, curve.prob)) for curve in videos]
    if all(rates is None for _, rates in found):
        return None
    plot = Plot("Precision and recall of fakes", _about(videos), share("recall"), share("precision"))
    for curve, rates in found:
        if rates is not None:
            plot.line(rates[1], rates[0], curve.kind, curve.name)
    chance = float(np.mean(videos[-1].label))
    plot.line([0, 1], [chance, chance], "mark", f"chance: {chance:.2f} of the videos are fake")
    return plot.svg()


def histogram_svg(
    label: IntArray, prob: FloatArray, *, thresholds: Mapping[str, float], title: str
) -> str | None:
    """Draws the video scores of both classes, each as a share of its class.

    Args:
        label: ``[V]``, 0 real, 1 fake.
        prob: ``[V]``, probability of fake.
        thresholds: Drawn as lines.
        title: Words above.

    Returns:
        The ``<svg>`` element, or ``None`` when there is no finite score.
    """
    finite = np.isfinite(prob)
    if not finite.any():
        return None
    edges = np.linspace(0, 1, BINS + 1)
    shares = {
        (value, word): _shares(prob[finite & (label == value)], edges)
        for value, word in ((0, "real"), (1, "fake"))
    }
    most = max((float(heights.max()) for heights in shares.values() if heights is not None), default=1.0)
    about = ", ".join(f"{int(np.sum(label == value))} {word}" for value, word in shares)
    plot = Plot(title, about, share("probability of fake"), linear("share of the class", 0, most))
    for (value, word), heights in shares.items():
        if heights is not None:
            plot.bars(edges, heights, word, f"{word} ({_videos(int(np.sum(label == value)))})")
    for name, threshold in thresholds.items():
        plot.upright(threshold, f"threshold {threshold:.3g}{name}")
    return plot.svg()


def reliability_svg(
    series: Sequence[tuple[str, int, IntArray, FloatArray]],
    calibrated: Sequence[Mapping[str, Any] | None] = (),
) -> str | None:
    """Draws the share of fakes against the probability, bin by bin; ``None`` where nothing was scored.

    Args:
        series: Name, run, labels ``[V]`` and raw probabilities ``[V]`` of each line.
        calibrated: What the weights' calibration made of them, of each run; ``None`` where it has none.
    """
    lines = [
        (f"{name}, raw scores", colour(run), reliability(label, prob))
        for name, run, label, prob in series
        if len(prob) and np.isfinite(prob).all()
    ]
    words = {run: name for name, run, *_ in series}
    lines += [
        (f"{words[run]}, calibrated", f"{colour(run)} frame", block["reliability"]["calibrated"])
        for run, block in enumerate(calibrated)
        if block is not None and run in words
    ]
    if not lines:
        return None
    plot = Plot(
        "Reliability", "on the dashed line a probability means what it says; large dots are many videos",
        share("mean probability of fake"), share("share of fakes"),
    )  # fmt: skip
    plot.diagonal()
    for name, kind, bins in lines:
        x, y = [b["probability"] for b in bins], [b["share_of_fakes"] for b in bins]
        videos = np.array([b["videos"] for b in bins], dtype=np.float64)
        plot.line(x, y, kind, name)
        plot.dots(x, y, f"{kind} faint", sizes=2 + 9 * np.sqrt(videos / videos.sum()))
    return plot.svg()


def _at(point: OperatingPoint, points: int) -> str:
    """The words of an operating point; of many, which no legend holds, the table of thresholds tells."""
    return f"{point.name}: {point.fpr:.1%} and {point.fnr:.1%}" if points <= MOST_NAMED else ""


def _about(curves: Sequence[Curve]) -> str:
    return "; ".join(curve.words for curve in curves)


def _normal(label: str) -> Axis:
    def quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(special.ndtri(values), dtype=np.float64)

    return Axis(label, _RATES[0], _RATES[-1], _DET, quantiles)


def _videos(count: int) -> str:
    return f"{count} video" if count == 1 else f"{count} videos"


def _shares(prob: FloatArray, edges: FloatArray) -> FloatArray | None:
    return np.histogram(prob, edges)[0] / len(prob) if len(prob) else None
