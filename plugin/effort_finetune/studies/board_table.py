"""From the results of all cells to the numbers of a leaderboard: one document, JSON types only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.evaluate.compared_runs import Run, read_run
from effort_finetune.evaluate.paired import holm
from effort_finetune.studies.board_cells import Board, Cell
from effort_finetune.studies.board_protocol import differences, protocol_of
from effort_finetune.studies.board_statistics import (
    ALPHA,
    difference_of,
    interval_of,
    mean_and_deviation,
    paired_parts,
)
from effort_finetune.studies.published import PublishedFile, read_published, rows_of

SCHEMA_VERSION = "1.0"
BEST, NOT_TOLD, BEHIND, UNTESTED = "best", "not told from the best", "behind", "untested"
AVERAGES = ("in domain", "out of domain", "average")


@dataclass
class Row:
    """A detector with its runs.

    Attributes:
        name: Of the detector.
        runs: Dataset to the runs of its seeds; a dataset with a run missing has none.
        mixed: What of its protocol differs, a line each.
    """

    name: str
    runs: dict[str, list[Run]] = field(default_factory=dict)
    mixed: list[str] = field(default_factory=list)

    def values(self, dataset: str, metric: str) -> list[float]:
        """Returns a value for each seed; none as soon as one seed has none."""
        level, _, name = metric.partition("_")
        found = [run.value(dataset, level, name) for run in self.runs.get(dataset, ())]
        values = [value for value in found if value is not None]
        return values if len(values) == len(found) else []


def document_of(
    board: Board, cells: Sequence[tuple[Cell, Path | None]], *, allow_mixed: bool
) -> dict[str, Any]:
    """Returns the leaderboard.

    Args:
        board: What was asked for.
        cells: Every cell with its results; ``None`` where there are none.
        allow_mixed: Whether cells of other protocols may stand in a column, marked.

    Raises:
        UserError: If cells of one column were measured by different protocols, or a file is damaged.
    """
    metrics = board.asked.metrics
    datasets = [board.labels[name] for name in board.asked.datasets]
    rows = _rows(board, cells)
    _check_protocols(rows, datasets, metrics, allow_mixed=allow_mixed)
    columns = _columns(board, datasets)
    marks, comparisons = _compared(rows, columns, board.asked.declared)
    measured = [
        {
            "detector": row.name,
            "kind": "measured",
            "seeds": max((len(runs) for runs in row.runs.values()), default=0),
            "mixed_protocol": row.mixed,
            "source": None,
            "protocol": None,
            "cells": {
                metric: {
                    column["name"]: _cell(
                        row, column, metric, marks if metric == board.asked.declared else {}
                    )
                    for column in columns
                }
                for metric in metrics
            },
        }
        for row in rows
    ]
    missing = [str(cell) for cell, path in cells if path is None]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "leaderboard",
        "title": board.asked.title or board.file.stem,
        "declared": board.asked.declared,
        "metrics": list(metrics),
        "columns": columns,
        "rows": [*measured, *_published_rows(board, columns, metrics)],
        "comparisons": comparisons,
        "groups": _groups(rows, datasets) if board.asked.groups else [],
        "missing": missing,
        "notes": _notes(rows, datasets),
    }


def _rows(board: Board, cells: Sequence[tuple[Cell, Path | None]]) -> list[Row]:
    rows = {entry.name: Row(entry.name) for entry in board.asked.detectors}
    holes = {(cell.entry.name, cell.dataset) for cell, path in cells if path is None}
    for cell, path in cells:
        if path is None or (cell.entry.name, cell.dataset) in holes:
            continue
        run = read_run(path, cell.entry.name)
        dataset = board.labels[cell.dataset]
        if dataset not in run.document["datasets"]:
            continue  # imported results need not hold every dataset; the cell is empty
        rows[cell.entry.name].runs.setdefault(dataset, []).append(run)
    return list(rows.values())


def _check_protocols(
    rows: Sequence[Row], datasets: Sequence[str], metrics: Sequence[str], *, allow_mixed: bool
) -> None:
    for dataset in datasets:
        protocols = {
            f"{row.name}\n{number}": protocol_of(run.document, dataset, metrics)
            for row in rows
            for number, run in enumerate(row.runs.get(dataset, ()))
        }
        for cell, lines in differences(protocols).items():
            row = next(row for row in rows if row.name == cell.rpartition("\n")[0])
            row.mixed += [text for line in lines if (text := f"{dataset}: {line}") not in row.mixed]
    if allow_mixed:
        return
    errors = [
        UserError(
            f"{row.name} was measured by another protocol", got="; ".join(row.mixed),
            expected="one protocol a column",
            next_step="measure it the same way, or --allow_mixed_protocols, which marks it",
        )
        for row in rows
        if row.mixed
    ]  # fmt: skip
    if errors:
        raise errors[0] if len(errors) == 1 else UserErrors(errors)


def _columns(board: Board, datasets: Sequence[str]) -> list[dict[str, Any]]:
    asked = board.asked
    if asked.in_domain is not None:
        inside = {board.labels[name] for name in asked.in_domain}
    else:
        trained = {
            str(name) for entry in asked.detectors for name in (entry.finetune or {}).get("train_dataset", ())
        }
        inside = {board.labels[name] for name in asked.datasets if name in trained}
    columns = [{"name": name, "of": [name], "in_domain": name in inside} for name in datasets]
    outside = [name for name in datasets if name not in inside]
    parts = {
        AVERAGES[0]: [name for name in datasets if name in inside],
        AVERAGES[1]: outside,
        AVERAGES[2]: datasets,
    }
    for name, of in parts.items():
        if len(of) > 1 and (name == AVERAGES[2] or len(of) < len(datasets)):
            columns.append({"name": name, "of": list(of), "in_domain": None})
    return columns


def _of_seeds(row: Row, column: Mapping[str, Any], metric: str) -> list[list[float]]:
    """Values of a column: for each seed one a dataset; nothing as soon as one is missing."""
    values = [row.values(dataset, metric) for dataset in column["of"]]
    sizes = {len(own) for own in values}
    if sizes == {0} or 0 in sizes or len(sizes) > 1:
        return []
    return [list(own) for own in zip(*values, strict=True)]


def _cell(
    row: Row, column: Mapping[str, Any], metric: str, marks: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    seeds = _of_seeds(row, column, metric)
    cell: dict[str, Any] = {
        "mean": None, "deviation": None, "values": [], "interval": None, "mark": None, "reason": None,
    }  # fmt: skip
    if not seeds:
        lacking = [dataset for dataset in column["of"] if not row.values(dataset, metric)]
        return {**cell, "reason": f"no value of {', '.join(lacking)}"}
    values = [float(np.mean(own)) for own in seeds]
    cell["values"] = values
    cell["mean"], cell["deviation"] = mean_and_deviation(values)
    cell["mark"] = marks.get((row.name, column["name"]))
    level, _, name = metric.partition("_")
    if len(column["of"]) == 1:
        (dataset,) = column["of"]
        runs = row.runs[dataset]
        if len(runs) > 1 and name == "auc":
            cell["interval"] = interval_of(values, runs, dataset, level)
        elif len(runs) == 1:
            block = runs[0].document["datasets"][dataset][level]
            cell["interval"] = block.get("ci95", {}).get("intervals", {}).get(name)
    return cell


def _compared(
    rows: Sequence[Row], columns: Sequence[Mapping[str, Any]], declared: str
) -> tuple[dict[tuple[str, str], str], list[dict[str, Any]]]:
    """Finds the best of each column and tests every other row against it."""
    level = declared.partition("_")[0]
    marks: dict[tuple[str, str], str] = {}
    tests: list[dict[str, Any]] = []
    for column in columns:
        known = {row.name: (row, seeds) for row in rows if (seeds := _of_seeds(row, column, declared))}
        if len(known) < 2:
            continue
        best, best_seeds = max(known.values(), key=lambda own: float(np.mean(own[1])))
        marks[best.name, column["name"]] = BEST
        for name, (row, seeds) in known.items():
            if name == best.name:
                continue
            parts = [paired_parts(best.runs[d], row.runs[d], d, level) for d in column["of"]]
            whole = [part for part in parts if part is not None]
            found = difference_of(whole, best_seeds, seeds) if len(whole) == len(parts) else None
            tests.append(
                {
                    "column": column["name"], "best": best.name, "other": name,
                    "change": None if found is None else found.change,
                    "error": None if found is None else found.error,
                    "p": None if found is None else found.p, "p_holm": None,
                }
            )  # fmt: skip
    tested = [test for test in tests if test["p"] is not None]
    for test, p in zip(tested, holm([test["p"] for test in tested]), strict=True):
        test["p_holm"] = p
    for test in tests:
        told = test["p_holm"] is not None and test["p_holm"] < ALPHA
        mark = UNTESTED if test["p"] is None else BEHIND if told else NOT_TOLD
        marks[test["other"], test["column"]] = mark
    return marks, tests


def _groups(rows: Sequence[Row], datasets: Sequence[str]) -> list[dict[str, Any]]:
    """Video AUC of each group of each dataset, mean over seeds, one value a detector."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        for dataset in datasets:
            blocks = [
                run.document["datasets"][dataset].get("groups") or {} for run in row.runs.get(dataset, ())
            ]
            for group in dict.fromkeys(name for block in blocks for name in block):
                own = [block[group]["auc"] for block in blocks if group in block]
                if len(own) < len(blocks) or any(value is None for value in own):
                    continue
                entry = found.setdefault((dataset, group), {"dataset": dataset, "group": group, "auc": {}})
                entry["auc"][row.name] = float(np.mean(own))
                entry["fake"] = blocks[0][group]["fake"]
    return list(found.values())


def _published_rows(
    board: Board, columns: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    files = [read_published(name, board.file.resolve().parent) for name in board.asked.published]
    asked = {board.labels[name]: board.asked.published_as.get(name, name) for name in board.asked.datasets}
    return [
        row
        for found in files
        for metric in metrics
        for detector, block, numbers in rows_of(found, metric)
        if (row := _published_row(found, columns, metric, asked, detector, block, numbers)) is not None
    ]


def _published_row(
    found: PublishedFile,
    columns: Sequence[Mapping[str, Any]],
    metric: str,
    asked: Mapping[str, str],
    detector: str,
    block: Any,
    numbers: Mapping[str, float],
) -> dict[str, Any] | None:
    cells: dict[str, Any] = {}
    for column in columns:
        values = [found.value(numbers, asked[dataset]) for dataset in column["of"]]
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        cells[column["name"]] = {
            "mean": float(np.mean(known)) if whole else None, "deviation": None, "values": [],
            "interval": None, "mark": None, "reason": None if whole else "not published",
        }  # fmt: skip
    if all(cell["mean"] is None for cell in cells.values()):
        return None
    return {
        "detector": detector,
        "kind": "published",
        "seeds": None,
        "mixed_protocol": [],
        "source": block.source.model_dump(),
        "protocol": dict(block.protocol),
        "cells": {metric: cells},
    }


def _notes(rows: Sequence[Row], datasets: Sequence[str]) -> list[str]:
    notes = [f"{row.name}, {line}" for row in rows for line in row.mixed]
    carriers: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for dataset in datasets:
            texts = [
                text
                for run in row.runs.get(dataset, ())
                for text in run.document["datasets"][dataset]["warnings"]
            ]
            for text in dict.fromkeys(texts):
                carriers.setdefault((dataset, text), []).append(row.name)
    return notes + [
        f"warning: {dataset} of {', '.join(names)}: {text}" for (dataset, text), names in carriers.items()
    ]
