"""Tables of a report: the summary, every metric of a dataset, and what each threshold decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from effort_finetune.core.metrics import TABLE
from effort_finetune.evaluate.compared_runs import Run
from effort_finetune.evaluate.intervals import clopper_pearson
from effort_finetune.evaluate.plots import OperatingPoint
from effort_finetune.evaluate.table import ABSENT, COLUMNS, interval, number

LEVELS = ("video", "frame")


@dataclass(frozen=True)
class Cell:
    """A number and what stands below it in small: its interval."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: the dataset, the run, the cells; ``first`` of its dataset, ``last`` of it."""

    name: str
    run: str
    cells: list[Cell]
    first: bool
    last: bool


def summary(runs: Sequence[Run], names: Sequence[str]) -> list[Line]:
    """Returns the first table: AUC by frame and every column by video of each dataset, and the averages.

    Args:
        runs: The runs.
        names: The datasets; a run that lacks one of them has no average here.
    """
    lines = []
    for name in names:
        lines += _lines(runs, name, partial(_of, name=name))
    if len(names) > 1:
        lines += _lines(runs, "average", partial(_average, names=names))
    return lines


def summary_head() -> list[str]:
    """Returns the headings of :func:`summary`'s cells."""
    return ["Frame AUC", *(f"Video {title}" if name == "auc" else title for name, title in COLUMNS)]


def every_metric(runs: Sequence[Run], dataset: str) -> list[tuple[str, str, list[Cell]]]:
    """Returns every metric of the table of metrics: heading, meaning, and a cell for each level and run."""
    rows = []
    for name, metric in TABLE.items():
        cells = [
            Cell(metric.text(block.get(name)), _bounds(block, name))
            for level in LEVELS
            for block in ((run.document["datasets"].get(dataset) or {}).get(level) or {} for run in runs)
        ]
        rows.append((metric.title, f"{metric.meaning}; {metric.direction} is better", cells))
    return rows


def decisions(runs: Sequence[Run], dataset: str) -> list[tuple[str, str, list[Cell]]]:
    """Returns what each threshold decides of the videos: run, threshold, counts, rates with intervals."""
    rows = []
    for run in runs:
        for name, block in _thresholds(run, dataset):
            counts = block["confusion"]
            rates = [TABLE[m].text(block.get(m)) for m in ("acc", "precision", "recall", "f1")]
            cells = [Cell(str(counts[key])) for key in ("tn", "fp", "fn", "tp")]
            cells += [_rate(block, "fpr", counts["fp"], counts["tn"])]
            cells += [_rate(block, "fnr", counts["fn"], counts["tp"]), *map(Cell, rates)]
            rows.append((run.label, f"{name} {block['threshold']:.4g}", cells))
    return rows


DECISION_HEAD = (
    "Reals passed", "Reals called fake", "Fakes missed", "Fakes found", "FPR", "FNR", "ACC", "Precision",
    "Recall", "F1",
)  # fmt: skip


def operating_points(runs: Sequence[Run], dataset: str) -> list[OperatingPoint]:
    """Returns the error rates of videos at every threshold of every run, where both classes are there."""
    points = []
    for number_of, run in enumerate(runs):
        for name, block in _thresholds(run, dataset):
            c = block["confusion"]
            if c["fp"] + c["tn"] and c["fn"] + c["tp"]:
                words = f"{run.label} at {name}" if run.label else f"at {name}"
                fpr, fnr = c["fp"] / (c["fp"] + c["tn"]), c["fn"] / (c["fn"] + c["tp"])
                points.append(OperatingPoint(words, number_of, fpr, fnr))
    return points


def thresholds(run: Run) -> dict[str, float]:
    """Returns the thresholds of raw scores by name: calibrated ones belong to calibrated scores."""
    return {"": run.threshold}


def _thresholds(run: Run, dataset: str) -> list[tuple[str, Mapping[str, Any]]]:
    block = run.document["datasets"].get(dataset) or {}
    found: list[tuple[str, Mapping[str, Any]]] = []
    if (video := block.get("video")) and video.get("confusion"):
        found.append(("raw", {**video, "threshold": run.threshold}))
    at = (block.get("calibrated") or {}).get("at") or {}
    found += [(f"calibrated {name}", own) for name, own in at.items() if own.get("confusion")]
    return found


def _rate(block: Mapping[str, Any], key: str, wrong: int, right: int) -> Cell:
    if not wrong + right:
        return Cell(ABSENT)
    share = wrong / (wrong + right)
    return Cell(
        number(share), interval(block.get(f"{key}_interval") or clopper_pearson(share, wrong + right))
    )


def _lines(runs: Sequence[Run], name: str, cells_of: Callable[[Run], list[Cell]]) -> list[Line]:
    return [Line(name, run.label, cells_of(run), run is runs[0], run is runs[-1]) for run in runs]


def _of(run: Run, name: str) -> list[Cell]:
    block = run.document["datasets"].get(name) or {}
    frame, video = block.get("frame") or {}, block.get("video") or {}
    first = Cell(TABLE["auc"].text(frame.get("auc")), _bounds(frame, "auc"))
    return [first, *(Cell(TABLE[m].text(video.get(m)), _bounds(video, m)) for m, _ in COLUMNS)]


def _average(run: Run, names: Sequence[str]) -> list[Cell]:
    if not set(names) <= set(run.document["datasets"]):
        return [Cell(ABSENT)] * (1 + len(COLUMNS))
    block = run.document["average"]
    first = Cell(TABLE["auc"].text(block["frame"].get("auc")))
    return [first, *(Cell(TABLE[m].text(block["video"].get(m))) for m, _ in COLUMNS)]


def _bounds(block: Mapping[str, Any], metric: str) -> str:
    bounds = (block.get("ci95") or {}).get("intervals", {}).get(metric)
    return "" if bounds is None else interval(bounds)
