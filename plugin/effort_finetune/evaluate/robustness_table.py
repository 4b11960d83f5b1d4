"""The robustness of a run as a text table: AUC, interval and flips at each level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effort_finetune.evaluate.table import ABSENT, aligned, interval, number


def robustness_table(document: Mapping[str, Any]) -> str:
    """Returns three rows for each corruption of each dataset, and what was left out; empty without any.

    Args:
        document: A results document.
    """
    rows, notes = [], []
    for name, dataset in document["datasets"].items():
        block = dataset.get("robustness")
        if block is None:
            continue
        for corruption, found in block["corruptions"].items():
            points = found["levels"]
            values = [_short(point["value"]) for point in points]
            aucs = [number(point["auc"]) for point in points]
            bounds = [interval(point["auc_ci95"]) for point in points]
            title = f"{name} {corruption}"
            mean = found["mean_relative_drop"]
            rows += [
                [title, found["title"], "", *values, "mean relative drop"],
                ["", "video AUC", number(found["auc_raw"]), *aucs, _signed(mean)],
                ["", "95% CI", "", *bounds, interval(found["mean_relative_drop_ci95"])],
                ["", "verdicts flipped", "", *(f"{p['flips']['share']:.1%}" for p in points), ""],
            ]
        notes += [f"{name}: {what} left out, {why}" for what, why in block["left_out"].items()]
    if not rows:
        return "\n".join(notes)
    levels = [f"level {level}" for level in range(1, len(rows[0]) - 3)]
    return "\n".join([aligned([["robustness", "", "as is", *levels, ""], *rows]), *notes])


def _short(value: float) -> str:
    return f"{value:g}"


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.4f}"
