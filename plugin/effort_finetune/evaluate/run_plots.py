"""Bars of label groups, curves of robustness and of training: what results hold beside scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effort_finetune.evaluate.svg import Axis, Plot, colour, fitted, linear, share, text

_BAR, _GAP, _NAMES = 13, 12, 150
#: A drawing of one corruption: two stand beside each other on a tablet, one on a phone.
_SMALL = {"width": 300.0, "height": 150.0}

Document = Mapping[str, Any]


def group_svg(runs: Sequence[tuple[str, Document]], dataset: str, metric: str, title: str) -> str | None:
    """Draws a bar with its interval for each label group and run; ``None`` where there are no groups.

    Args:
        runs: Name and results document of each run.
        dataset: The dataset.
        metric: ``auc`` or ``acc``.
        title: Words above.
    """
    rows = [
        (run, (document["datasets"].get(dataset) or {}).get("groups") or {})
        for run, (_, document) in enumerate(runs)
    ]
    groups = [g for g in dict.fromkeys(g for _, own in rows for g in own) if _known(rows, g, metric)]
    if not groups:
        return None
    each = _GAP + _BAR * len(runs)
    height = each * len(groups)
    plot = Plot(title, ", ".join(groups), share(""), Axis("", 0, 1, ()), height=height, left=_NAMES)
    for run, (name, _) in enumerate(runs):
        if len(runs) > 1:
            plot.bars([0, 0], [0], colour(run), name)
    inner = plot.width - _NAMES - 14
    for i, group in enumerate(groups):
        top = i * each + _GAP / 2
        plot.raw(text(-6, top + _BAR * len(runs) / 2 + 4, fitted(group, _NAMES - 10), "end"))
        for run, own in rows:
            value = (own.get(group) or {}).get(metric)
            if value is None:
                continue
            y = top + run * _BAR
            plot.raw(
                f'<path class="{colour(run)} bar" d="M0 {y:.1f}H{value * inner:.1f}V{y + _BAR - 2:.1f}H0Z">'
                f"<title>{value:.4f}</title></path>"
            )
            if bounds := (own[group].get("ci95") or {}).get(metric):
                middle = y + _BAR / 2 - 1
                plot.raw(
                    f'<path class="ends" d="M{bounds[0] * inner:.1f} {middle:.1f}H{bounds[1] * inner:.1f}"/>'
                )
    return plot.svg()


def robustness_svgs(runs: Sequence[tuple[str, Document]], dataset: str) -> list[str]:
    """Draws the video AUC over the levels of each corruption, with intervals, one drawing a corruption.

    Args:
        runs: Name and results document of each run.
        dataset: The dataset.
    """
    blocks = [
        ((document["datasets"].get(dataset) or {}).get("robustness") or {}).get("corruptions") or {}
        for _, document in runs
    ]
    drawn = []
    for name in dict.fromkeys(name for block in blocks for name in block):
        found = [(run, block[name]) for run, block in enumerate(blocks) if name in block]
        points = [[_point(own["auc_raw"], None), *own["levels"]] for _, own in found]
        aucs = [p["auc"] for own in points for p in own if p["auc"] is not None]
        if not aucs:
            continue
        values = found[0][1]["levels"]
        ticks = [(0.0, "as is"), *((float(p["level"]), f"{p['value']:g}") for p in values)]
        low = min([0.5, *(p["auc_ci95"][0] for own in points for p in own if p["auc_ci95"]), *aucs])
        plot = Plot(
            f"{name}: video AUC", "; ".join(_robust_words(runs[run][0], own) for run, own in found),
            Axis(found[0][1]["title"], -0.3, 5.3, ticks), linear("", max(low, 0.0), 1.0), **_SMALL,
        )  # fmt: skip
        for (run, own), line in zip(found, points, strict=True):
            x = np.arange(len(line)) + 0.07 * run  # intervals of runs stand beside each other
            plot.bounds(x, _ends(line, 0), _ends(line, 1), colour(run))
            plot.line(
                x, _numbers(p["auc"] for p in line), colour(run), _robust_words(runs[run][0], own), dots=True
            )
        drawn.append(plot.svg())
    return drawn


def training_svgs(runs: Sequence[tuple[str, Document]]) -> list[str]:
    """Draws the loss and what chose the checkpoint over the epochs of the runs that trained.

    Args:
        runs: Name and results document of each run.
    """
    trained = [
        (run, name, document["training"])
        for run, (name, document) in enumerate(runs)
        if (document.get("training") or {}).get("history")
    ]
    if not trained:
        return []
    epochs = [entry["epoch"] for *_, own in trained for entry in own["history"]]
    measured = {
        run: [own["start"], *own["history"]] if own.get("start") else own["history"]
        for run, _, own in trained
    }
    drawn = []
    losses = {
        run: (_epochs(own["history"]), _numbers(e["train"]["loss"].get("overall") for e in own["history"]))
        for run, _, own in trained
    }
    drawn.append(_over_epochs("Training loss", "mean, in nats", trained, losses, epochs))
    metric = next((own["selection"].get("metric") for *_, own in trained if own.get("selection")), None)
    chosen = {
        run: (_epochs(entries), _numbers(e["selection_value"] for e in entries))
        for run, entries in measured.items()
    }
    if any(np.isfinite(y).any() for _, y in chosen.values()):
        title = f"What chose the checkpoint: {metric}" if metric else "What chose the checkpoint"
        drawn.append(_over_epochs(title, "mean of datasets", trained, chosen, epochs))
    return [svg for svg in drawn if svg]


def _over_epochs(
    title: str, label: str, trained: Sequence[tuple[int, str, Mapping[str, Any]]],
    lines: Mapping[int, tuple[Any, Any]], epochs: Sequence[int],
) -> str:  # fmt: skip
    known = np.concatenate([y[np.isfinite(y)] for _, y in lines.values()])
    if not len(known):
        return ""
    first, last = min(epochs), max(epochs)
    step = max(round((last - first) / 8), 1)
    ticks = [(float(first - 1), "start"), *((float(e), str(e)) for e in range(first, last + 1, step))]
    plot = Plot(
        title, label, Axis("epoch", first - 1, max(last, first), ticks),
        linear(label, float(known.min()), float(known.max())), height=180,
    )  # fmt: skip
    for run, name, own in trained:
        x, y = lines[run]
        best = [e["epoch"] for e in own["history"] if e["selected"]]
        words = f"{name or 'this run'}: epoch {best[-1]} selected" if best else name
        plot.line(np.where(x < first, first - 1, x), y, colour(run), words, dots=True)
    return plot.svg()


def _known(rows: Sequence[tuple[int, Mapping[str, Any]]], group: str, metric: str) -> bool:
    return any((own.get(group) or {}).get(metric) is not None for _, own in rows)


def _point(auc: float | None, bounds: Sequence[float] | None) -> dict[str, Any]:
    return {"level": 0, "auc": auc, "auc_ci95": bounds}


def _robust_words(name: str, own: Mapping[str, Any]) -> str:
    drop = own["mean_relative_drop"]
    said = "no mean change" if drop is None else f"mean relative change {drop:+.3f}"
    return f"{name}: {said}" if name else said


def _ends(points: Sequence[Mapping[str, Any]], end: int) -> Any:
    return _numbers(p["auc_ci95"][end] if p["auc_ci95"] else None for p in points)


def _epochs(entries: Sequence[Mapping[str, Any]]) -> Any:
    return np.array([-np.inf if e["epoch"] == "start" else float(e["epoch"]) for e in entries])


def _numbers(values: Any) -> Any:
    return np.array([np.nan if value is None else float(value) for value in values])
