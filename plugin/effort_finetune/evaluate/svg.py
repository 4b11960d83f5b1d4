"""Axes, lines, bars and words as SVG: small enough that a page holds hundreds, legible on a phone.

A general plotting library takes a sixth of a second and 18 kB a figure, which sixty datasets of six figures
turn into a minute and 7 MB. All words are text, all colours are classes of the page's style sheet, and
nothing is drawn where something else stands: the legend has its own lines above the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from effort_finetune.core.escaping import for_html

#: Pixels of the drawing, which the page scales to its column: words keep 11 of them.
WIDTH = 380
FONT = 11
#: Widest glyphs of the usual sans-serif fonts are about this share of their size; the mean is well below.
GLYPH = 0.62
LINE = 16
_LEFT, _RIGHT, _BOTTOM, _TOP = 46, 14, 42, 10
#: Steps between kept points of a curve: less cannot be seen.
_STEP = 0.7
COLOURS = 8


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: Its words.
        low: Its lower end.
        high: Its upper end.
        ticks: Value and text of each tick.
        scale: Values to what is drawn evenly, e.g. the normal quantiles of a DET curve.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    scale: Callable[[NDArray[np.float64]], NDArray[np.float64]] = field(default=lambda values: values)

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Returns where values stand, 0 at the lower end and 1 at the upper; those outside are moved in."""
        inside = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        ends = self.scale(np.array([self.low, self.high]))
        return (self.scale(inside) - ends[0]) / (ends[1] - ends[0])


def linear(label: str, low: float, high: float) -> Axis:
    """Returns an axis with some four to six round ticks.

    Args:
        label: Its words.
        low: Its lower end, or a lower one where the next tick is.
        high: Its upper end, the same way.
    """
    span = high - low or abs(high) or 1.0
    size = 10.0 ** np.floor(np.log10(span / 4))
    step = size * next(m for m in (1, 2, 5, 10) if span / (m * size) <= 6)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    values = (np.arange(first, last + 1) * step).tolist()
    return Axis(label, values[0], values[-1], [(v, f"{v:.6g}") for v in values])


def share(label: str) -> Axis:
    """Returns an axis from 0 to 1."""
    return linear(label, 0.0, 1.0)


class Plot:
    """One drawing; what is added later lies above.

    Args:
        title: What it shows, for everybody: it is the drawing's heading and its accessible name.
        about: A sentence for those who cannot see it.
        x: Horizontal axis.
        y: Vertical axis.
        height: Of the axes in pixels.
        width: Of the drawing in pixels.
        left: Room for the words of the vertical axis.
    """

    def __init__(
        self, title: str, about: str, x: Axis, y: Axis, *,
        height: float = 250, width: float = WIDTH, left: float = _LEFT,
    ) -> None:  # fmt: skip
        self.title, self.about, self.x, self.y = title, about, x, y
        self.height, self.width, self.left = height, width, left
        self._body: list[str] = []
        self._legend: list[tuple[str, str, str]] = []

    def line(self, x: ArrayLike, y: ArrayLike, kind: str, name: str = "", *, dots: bool = False) -> None:
        """Draws a line; what is no number interrupts it.

        Args:
            x: ``[N]``.
            y: ``[N]``.
            kind: CSS classes, e.g. ``run-0 frame``.
            name: Its words in the legend; empty for none.
            dots: Whether each point is marked.
        """
        across, up = self._across(x), self._up(y)
        path, last = [], None
        for i, (a, b) in enumerate(zip(across.tolist(), up.tolist(), strict=True)):
            if not (np.isfinite(a) and np.isfinite(b)):
                last = None
                continue
            if last is None:
                path.append(f"M{a:.1f} {b:.1f}")
            elif abs(a - last[0]) + abs(b - last[1]) >= _STEP or i == len(across) - 1:
                path.append(f"L{a:.1f} {b:.1f}")
            else:
                continue
            last = a, b
        self._body.append(f'<path class="{kind}" d="{"".join(path)}"/>')
        if dots:
            self.dots(x, y, kind)
        self._named(name, kind, "line")

    def dots(self, x: ArrayLike, y: ArrayLike, kind: str, name: str = "", *, sizes: ArrayLike = 3) -> None:
        """Draws points, with radii in pixels."""
        across, up = self._across(x), self._up(y)
        radii = np.broadcast_to(np.asarray(sizes, dtype=np.float64), across.shape)
        for a, b, r in zip(across.tolist(), up.tolist(), radii.tolist(), strict=True):
            if np.isfinite(a) and np.isfinite(b):
                self._body.append(f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="{r:.1f}"/>')
        self._named(name, kind, "dot")

    def bounds(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, kind: str) -> None:
        """Draws upright intervals."""
        ends = zip(self._across(x).tolist(), self._up(low).tolist(), self._up(high).tolist(), strict=True)
        path = "".join(f"M{a:.1f} {b:.1f}V{c:.1f}" for a, b, c in ends if np.isfinite((a, b, c)).all())
        if path:
            self._body.append(f'<path class="{kind} bound" d="{path}"/>')

    def bars(self, edges: ArrayLike, heights: ArrayLike, kind: str, name: str = "") -> None:
        """Draws a histogram: ``edges [N + 1]``, ``heights [N]``."""
        at, up = self._across(edges).tolist(), self._up(heights).tolist()
        base = float(self._up([self.y.low])[0])
        path = "".join(
            f"M{a:.1f} {base:.1f}V{b:.1f}H{c:.1f}V{base:.1f}Z"
            for a, c, b in zip(at[:-1], at[1:], up, strict=True)
            if abs(b - base) > 1e-9
        )
        self._body.append(f'<path class="{kind} bar" d="{path}"/>')
        self._named(name, kind, "bar")

    def upright(self, x: float, name: str = "") -> None:
        """Draws a dashed upright line through the axes."""
        a = float(self._across([x])[0])
        self._body.append(f'<path class="mark" d="M{a:.1f} 0V{self.height:g}"/>')
        self._named(name, "mark", "line")

    def diagonal(self) -> None:
        """Draws the dashed line from corner to corner, e.g. of chance."""
        x = np.linspace(self.x.low, self.x.high, 2 if self.x.scale is self.y.scale else 64)
        self.line(x, x, "mark")

    def raw(self, markup: str) -> None:
        """Adds elements in pixels from the upper left corner of the axes."""
        self._body.append(markup)

    def svg(self) -> str:
        """Returns the ``<svg>`` element with its heading inside, and ``title`` and ``desc``."""
        top = _TOP + LINE * (1 + len(self._legend)) + 4
        whole = top + self.height + _BOTTOM
        inner = self.width - self.left - _RIGHT
        head = [
            f'<svg class="plot" role="img" viewBox="0 0 {self.width:g} {whole:g}" '
            f'style="max-width:{self.width:g}px">',
            f"<title>{for_html(self.title)}</title><desc>{for_html(self.about, limit=None)}</desc>",
            text(2, _TOP + 5, fitted(self.title, self.width - 4, bold=True), "heading"),
        ]
        for i, (name, kind, form) in enumerate(self._legend):
            y = _TOP + LINE * (i + 1)
            head.append(f'<g transform="translate(4 {y})">{_sample(kind, form)}</g>')
            head.append(text(30, y + 9, fitted(name, self.width - 34), ""))
        ticks = [f'<g transform="translate({self.left:g} {top:g})">']
        for value, words in self.x.ticks:
            a = float(self.x.place([value])[0]) * inner
            ticks.append(f'<path class="grid" d="M{a:.1f} 0V{self.height:g}"/>')
            ticks.append(text(a, self.height + 16, words, "middle"))
        for value, words in self.y.ticks:
            b = self.height * (1 - float(self.y.place([value])[0]))
            ticks.append(f'<path class="grid" d="M0 {b:.1f}H{inner:g}"/>')
            ticks.append(text(-6, b + 4, words, "end"))
        ticks.append(text(inner / 2, self.height + 34, self.x.label, "middle"))
        if self.y.label:
            middle = self.height / 2
            ticks.append(
                f'<text class="middle" transform="translate({12 - self.left:g} {middle:g}) rotate(-90)">'
                f"{for_html(fitted(self.y.label, self.height))}</text>"
            )
        return "".join([*head, *ticks, *self._body, "</g></svg>"])

    def _across(self, values: ArrayLike) -> NDArray[np.float64]:
        return self.x.place(values) * (self.width - self.left - _RIGHT)

    def _up(self, values: ArrayLike) -> NDArray[np.float64]:
        return self.height * (1 - self.y.place(values))

    def _named(self, name: str, kind: str, form: str) -> None:
        if name:
            self._legend.append((name, kind, form))


def text(x: float, y: float, words: str, kind: str) -> str:
    """Returns a ``<text>`` element, escaped.

    Args:
        x: Where it starts, or by its class ends or has its middle.
        y: Its base line.
        words: What it says.
        kind: CSS classes.
    """
    of = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{of}>{for_html(words)}</text>'


def fitted(words: str, pixels: float, *, bold: bool = False) -> str:
    """Returns words cut so that they fit, with the full stops of what is missing."""
    most = max(int(pixels / (FONT * GLYPH * (1.06 if bold else 1.0))), 1)
    return words if len(words) <= most else f"{words[: most - 1]}…"


def colour(run: int) -> str:
    """Returns the CSS classes of a run: eight colours, then the same ones dashed in other ways."""
    again = run // COLOURS
    return f"run-{run % COLOURS}" + (f" again-{min(again, 3)}" if again else "")


def joined(parts: Iterable[str]) -> str:
    """Returns words of a list as they are said: ``a, b and c``."""
    *first, last = list(parts) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _sample(kind: str, form: str) -> str:
    if form == "bar":
        return f'<path class="{kind} bar" d="M2 1H20V10H2Z"/>'
    if form == "dot":
        return f'<circle class="{kind}" cx="11" cy="6" r="4"/>'
    return f'<path class="{kind}" d="M0 6H22"/>'
