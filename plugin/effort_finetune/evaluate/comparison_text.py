"""A comparison for readers: its tables, its sentences, and what differs between the runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from effort_finetune.config import Settings
from effort_finetune.data.dataset_name import labels_of
from effort_finetune.evaluate import table
from effort_finetune.evaluate.compared_runs import Run
from effort_finetune.evaluate.comparison import (
    NOTHING_SHOWN,
    Comparison,
    Row,
    compare,
    forgetting,
    seed_groups,
)
from effort_finetune.evaluate.table_formats import rendered


def document_of(
    comparison: Comparison,
    runs: Sequence[Run],
    metrics: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    trained_on: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Returns all there is to say, JSON types only.

    Args:
        comparison: The comparison.
        runs: Its runs.
        metrics: The metrics asked for.
        groups: The group of each run; ``None`` forms none.
        trained_on: The new datasets; ``None`` asks the runs that trained.
    """
    if trained_on is None:
        trained_on = [name for run in runs for name in _trained_on(run)]
    old, means = forgetting(comparison, trained_on) if trained_on else ([], {})
    return {
        **comparison.to_dict(),
        "values": _values(runs, metrics),
        "groups": [] if groups is None else [list(row) for row in seed_groups(runs, groups, metrics)],
        "trained_on": sorted(set(trained_on)),
        "forgetting": {"rows": [[row.dataset, row.run] for row in old], "mean_change": means},
        "differs": _differs(runs),
        "warnings": table.taints([run.document for run in runs], [run.label for run in runs]),
        "said": said(comparison),
    }


def rendered_comparison(document: Mapping[str, Any], form: str) -> str:
    """Returns the document in one of the formats of ``table_formats.FORMATS``."""
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    rows = [Row(**row) for row in document["rows"]]
    parts = []
    if len(document["labels"]) != 2:  # of two, the changes hold both values
        parts.append(rendered([["dataset", "metric", *document["labels"]], *document["values"]], form))
    if rows:
        parts.append(rendered(_table(rows), form))
    if document["groups"]:
        cells = [
            [dataset, metric, group, str(size), table.number(mean), table.number(deviation)]
            for dataset, metric, group, size, mean, deviation in document["groups"]
        ]
        parts.append(rendered([["dataset", "metric", "group", "runs", "mean", "deviation"], *cells], form))
    if document["forgetting"]["rows"]:
        old = [row for row in rows if [row.dataset, row.run] in document["forgetting"]["rows"]]
        parts.append(forgetting_table([r for r in old if r.metric == document["declared"]], form))
    if form in ("text", "markdown"):
        lines = [*document["said"], *document["notes"], *document["differs"], *document["warnings"]]
        parts += ["\n".join(f"- {line}" if form == "markdown" else line for line in lines)] if lines else []
    return "\n\n".join(parts)


def forgotten(before: Run, after: Run, trained_on: Sequence[str]) -> str | None:
    """Returns the table of forgetting of one training; ``None`` where no other dataset was measured twice.

    Args:
        before: The run of the starting weights, of ``compared_runs.read_run``.
        after: That of the trained ones.
        trained_on: The datasets that the training held.

    Raises:
        UserError: If a score file is damaged.
    """
    rows, means = forgetting(compare([before, after], []), trained_on)
    if not rows:
        return None
    return f"{forgetting_table(rows)}\nmean change of old datasets: {means[after.label]:+.4f}"


def forgetting_table(rows: Sequence[Row], form: str = "text") -> str:
    """Returns the table of the datasets that a training did not hold, before and after it.

    Args:
        rows: As :func:`~effort_finetune.evaluate.comparison.forgetting` returns them.
        form: The format.
    """
    cells = [
        [row.dataset, row.run, table.number(row.first), table.number(row.value), _signed(row.change),
         _bounds(row), row.verdict or table.ABSENT]
        for row in rows
    ]  # fmt: skip
    changes = [row.change for row in rows if row.change is not None]
    if len(changes) > 1:
        mean = sum(changes) / len(changes)
        cells.append(["mean of the old datasets", "", "", "", _signed(mean), "", ""])
    head = ["old dataset", "run", "before", "after", "change", "95 % interval", "verdict"]
    return rendered([head, *cells], form)


def said(comparison: Comparison) -> list[str]:
    """Returns plain sentences on what is decided and what is not."""
    lines = []
    for row in comparison.rows:
        if row.metric != comparison.declared or row.verdict is None:
            continue
        name = f"{row.dataset}, {row.run} against {comparison.labels[0]}"
        if row.verdict != NOTHING_SHOWN:
            lines.append(f"{name}: {row.metric} is {row.verdict} by {abs(row.change or 0):.4f}")
        elif row.detectable is None:
            lines.append(f"{name}: {NOTHING_SHOWN}")
        else:
            lines.append(
                f"{name}: {NOTHING_SHOWN} in {row.metric}; {row.videos} videos show a difference of "
                f"{row.detectable:.3f} or more in 8 of 10 cases"
                + (f", {comparison.difference:g} takes {row.videos_needed}" if row.videos_needed else "")
            )
    return lines


def _table(rows: Sequence[Row]) -> list[list[str]]:
    head = [
        "dataset",
        "metric",
        "run",
        "first",
        "this",
        "change",
        "95 % interval",
        "p",
        "p (Holm)",
        "verdict",
    ]
    return [
        head,
        *(
            [
                row.dataset, row.metric, row.run, table.number(row.first), table.number(row.value),
                _signed(row.change), _bounds(row), table.number(row.p), table.number(row.p_holm),
                row.verdict or table.ABSENT,
            ]
            for row in rows
        ),
    ]  # fmt: skip


def _values(runs: Sequence[Run], metrics: Sequence[str]) -> list[list[str]]:
    return [
        [dataset, metric, *(table.number(run.value(dataset, *_parts(metric))) for run in runs)]
        for dataset in dict.fromkeys(name for run in runs for name in run.document["datasets"])
        for metric in metrics
    ]


def _differs(runs: Sequence[Run]) -> list[str]:
    documents, labels = [run.document for run in runs], [run.label for run in runs]
    lines = [
        f"{run.label} is not complete: {run.document['reason']}"
        for run in runs
        if run.document["status"] != "complete"
    ]
    lines += [f"{run.label}: numbers by {run.document['computed_by']}" for run in runs if run.by_host]
    return lines + table.protocol_differences(documents, labels)


def _trained_on(run: Run) -> list[str]:
    """Returns what a run trained on, as its results call it: settings have a folder by its path."""
    settings = run.document.get("settings") or {}
    if run.document.get("training") is None:
        return []
    kinds = ("train_dataset", "val_dataset", "test_dataset")
    asked = Settings(**{kind: tuple(settings.get(kind) or ()) for kind in kinds})
    return [labels_of(asked)[name] for name in asked.train_dataset]


def _parts(metric: str) -> tuple[str, str]:
    level, _, name = metric.partition("_")
    return level, name


def _signed(value: float | None) -> str:
    return table.ABSENT if value is None else f"{value:+.4f}"


def _bounds(row: Row) -> str:
    if row.low is None or row.high is None:
        return table.ABSENT
    return f"[{row.low:+.4f}, {row.high:+.4f}]"
