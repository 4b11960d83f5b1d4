"""ROC curves and score histograms as SVG that takes its colours from the page's style sheet."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from effort_finetune.core.metrics import roc_points

# Drawn in these colours, then replaced by CSS variables: one SVG fits a light and a dark page.
_CSS = {
    "#010101": "var(--ink)",
    "#020202": "var(--grid)",
    "#030303": "var(--real)",
    "#040404": "var(--fake)",
    "#050505": "var(--run-0)",
    "#060606": "var(--run-1)",
}
_INK, _GRID, _REAL, _FAKE, *_RUNS = _CSS
BINS = 40

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """One ROC to draw: ``run`` chooses its colour, frame curves are dotted."""

    name: str
    run: int
    level: str
    label: IntArray
    prob: FloatArray
    auc: float | None


def roc_svg(curves: Sequence[Curve], *, identifier: str) -> str | None:
    """Draws ROC curves into one square.

    Args:
        curves: Curves of at most two runs.
        identifier: Unique on the page; SVG clip paths are named after it.

    Returns:
        The ``<svg>`` element, or ``None`` when no curve exists (one class only).
    """
    points = [(curve, roc_points(curve.label, curve.prob)) for curve in curves]
    if not any(found for _, found in points):
        return None
    figure, axes = _axes(4.2, 3.9)
    axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1, linestyle=(0, (4, 3)))
    for curve, found in points:
        if found is None:
            continue
        frame = curve.level == "frame"
        axes.plot(
            *found,
            color=_RUNS[curve.run],
            linewidth=1.2 if frame else 2.2,
            linestyle=(0, (1, 1.6)) if frame else "-",
            label=f"{_cut(curve.name, 20)}, {curve.level}s: AUC {curve.auc:.3f}",
        )
    axes.set(
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="false positive rate", ylabel="true positive rate"
    )
    axes.legend(loc="lower right", frameon=False, labelcolor=_INK, fontsize=9)
    return _svg(figure, identifier)


def histogram_svg(
    label: IntArray, prob: FloatArray, *, threshold: float, title: str, identifier: str
) -> str | None:
    """Draws the video scores of both classes, each as a share of its class.

    Args:
        label: ``[V]``, 0 real, 1 fake.
        prob: ``[V]``, probability of fake.
        threshold: Drawn as a line.
        title: Words above.
        identifier: Unique on the page.

    Returns:
        The ``<svg>`` element, or ``None`` when there is no finite score.
    """
    finite = np.isfinite(prob)
    if not finite.any():
        return None
    figure, axes = _axes(4.2, 3.9)
    edges = np.linspace(0, 1, BINS + 1).tolist()
    for value, colour, word in ((0, _REAL, "real"), (1, _FAKE, "fake")):
        chosen = prob[finite & (label == value)]
        if len(chosen):
            weights = np.full(len(chosen), 1 / len(chosen))
            axes.hist(
                chosen, edges, weights=weights, color=colour, alpha=0.6, label=f"{word} ({len(chosen)})"
            )
    axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), xlabel="video score, probability of fake", ylabel="share of the class")
    axes.set_title(_cut(title, 45), color=_INK, fontsize=10, loc="left", pad=22)
    # Between title and axes: the classes gather at both ends and the threshold stands in the middle.
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.98),
        ncols=2,
        frameon=False,
        labelcolor=_INK,
        fontsize=9,
        borderaxespad=0.2,
    )
    return _svg(figure, identifier)


def _cut(name: str, width: int) -> str:
    """The start of a name of somebody's choice: matplotlib lets a long one run over the plot and its edge."""
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.tick_params(colors=_INK, labelsize=9, length=3)
    axes.xaxis.label.set(color=_INK, fontsize=9)
    axes.yaxis.label.set(color=_INK, fontsize=9)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GRID)
    return figure, axes


def _svg(figure: Figure, identifier: str) -> str:
    stream = io.StringIO()
    # Text stays text (the page's font, searchable); the salt keeps ids apart and the output reproducible.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": identifier}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for marker, variable in _CSS.items():
        svg = svg.replace(marker, variable)
    return re.sub(
        r'\bid="(?=(figure|axes|patch|line2d|text|matplotlib|legend|xtick|ytick))', f'id="{identifier}-', svg
    )
