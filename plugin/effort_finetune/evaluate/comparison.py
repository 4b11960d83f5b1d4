"""Runs compared on the same videos: what differs, by how much, and whether it can be told from noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from effort_finetune.core.metrics import LOWER_IS_BETTER
from effort_finetune.evaluate.compared_runs import Run, paired_levels
from effort_finetune.evaluate.paired import Difference, differences, holm

ALPHA = 0.05
NOTHING_SHOWN = "no difference shown"


@dataclass(frozen=True)
class Row:
    """One metric of one dataset in a run, against the first run.

    Attributes:
        dataset: The dataset.
        metric: ``<level>_<metric>``.
        run: Label of the run.
        first: Value of the first run; on the common videos where scores are at hand.
        value: Value of this run, the same way.
        change: ``value - first``.
        low: Lower end of the paired 95 % interval of the change; ``None`` with ``reason``.
        high: Its upper end.
        reason: Why there is no interval.
        p: DeLong's p; of AUCs only.
        p_holm: The same, adjusted for every test of the declared metric in the table.
        verdict: ``better``, ``worse`` or ``no difference shown``; only of the declared metric.
        detectable: Smallest true difference that these videos show with power .8.
        videos: Videos of both.
        videos_needed: Videos that show the difference asked for with power .8.
    """

    dataset: str
    metric: str
    run: str
    first: float | None
    value: float | None
    change: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: str | None = None
    detectable: float | None = None
    videos: int | None = None
    videos_needed: int | None = None


@dataclass(frozen=True)
class Comparison:
    """A table of comparisons.

    Attributes:
        labels: The runs, the first is what the others are compared with.
        declared: The metric that words are spent on.
        difference: What ``videos_needed`` is for.
        rows: Dataset by dataset.
        notes: What differs between the runs, or keeps a number from being compared.
    """

    labels: tuple[str, ...]
    declared: str
    difference: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types only."""
        return asdict(self)


def compare(
    runs: Sequence[Run],
    metrics: Sequence[str],
    *,
    declared: str = "video_auc",
    samples: int = 1000,
    seed: int = 1024,
    difference: float = 0.01,
) -> Comparison:
    """Compares every run with the first, on each dataset that both measured.

    "Better" and "worse" need both: the paired interval excludes 0 and, of all tests of the declared metric in
    the table, Holm's p is under .05. Every other metric stands with its interval and without a word.

    Args:
        runs: At least one; the first is the reference.
        metrics: ``<level>_<metric>`` names.
        declared: The one metric that gets words; its level's AUC has DeLong's p.
        samples: Resamples of the intervals.
        seed: Of the resamples.
        difference: The true difference for which the number of videos is worked out.

    Raises:
        UserError: If a score file is damaged.
    """
    rows: list[Row] = []
    notes: list[str] = []
    names = list(dict.fromkeys([declared, *metrics]))
    for dataset in dict.fromkeys(name for run in runs for name in run.document["datasets"]):
        for run in runs[1:]:
            found, remarks = _paired(runs[0], run, dataset, names, samples, seed)
            notes += [f"{dataset}, {runs[0].label} and {run.label}: {remark}" for remark in remarks]
            rows += [_row(runs[0], run, dataset, name, found.get(name), difference) for name in names]
    return Comparison(
        tuple(run.label for run in runs), declared, difference, tuple(_judged(rows, declared)), tuple(notes)
    )


def forgetting(comparison: Comparison, trained_on: Sequence[str]) -> tuple[list[Row], dict[str, float]]:
    """Returns what became of the datasets that a training did not hold.

    Args:
        comparison: Before against after.
        trained_on: The datasets that the training held.

    Returns:
        The rows of the declared metric for every other dataset, and for each run the mean of their changes.
    """
    rows = [
        row
        for row in comparison.rows
        if row.metric == comparison.declared and row.dataset not in trained_on and row.change is not None
    ]
    means = {
        label: float(np.mean([row.change for row in rows if row.run == label]))
        for label in comparison.labels[1:]
        if any(row.run == label for row in rows)
    }
    return rows, means


def seed_groups(
    runs: Sequence[Run], groups: Sequence[str], metrics: Sequence[str]
) -> list[tuple[str, str, str, int, float | None, float | None]]:
    """Returns mean and standard deviation over the runs of each group, e.g. over seeds.

    Args:
        runs: The runs.
        groups: The group of each.
        metrics: ``<level>_<metric>`` names.

    Returns:
        Rows of dataset, metric, group, number of runs, mean and deviation (``None`` of a single run, or where
        a run lacks the number).
    """
    rows: list[tuple[str, str, str, int, float | None, float | None]] = []
    for dataset in dict.fromkeys(name for run in runs for name in run.document["datasets"]):
        for metric in metrics:
            level, _, name = metric.partition("_")
            for group in dict.fromkeys(groups):
                members = [run for run, own in zip(runs, groups, strict=True) if own == group]
                values = [run.value(dataset, level, name) for run in members]
                known = [value for value in values if value is not None]
                whole = len(known) == len(values)
                mean = float(np.mean(known)) if whole else None
                deviation = float(np.std(known, ddof=1)) if whole and len(known) > 1 else None
                rows.append((dataset, metric, group, len(members), mean, deviation))
    return rows


def _paired(
    first: Run, second: Run, dataset: str, names: Sequence[str], samples: int, seed: int
) -> tuple[dict[str, Difference], list[str]]:
    scores = first.scores(dataset), second.scores(dataset)
    if scores[0] is None or scores[1] is None:
        lacking = [run.label for run, own in zip((first, second), scores, strict=True) if own is None]
        return {}, [f"no scores of {' and '.join(lacking)} at hand, so that no interval can be given"]
    levels, notes = paired_levels(scores[0], scores[1], (first.threshold, second.threshold))
    found: dict[str, Difference] = {}
    for level, sides in levels.items():
        own = [name.partition("_")[2] for name in names if name.startswith(f"{level}_")]
        own = [name for name in own if name != "loss"]
        if own and len(sides[0].label) and np.isfinite(np.r_[sides[0].prob, sides[1].prob]).all():
            values = differences(*sides, own, samples=samples, seed=seed)
            found.update({f"{level}_{name}": value for name, value in values.items()})
    return found, notes


def _row(first: Run, run: Run, dataset: str, metric: str, found: Difference | None, difference: float) -> Row:
    if found is not None:
        low, high = found.interval or (None, None)
        return Row(
            dataset, metric, run.label, found.first, found.second, found.change, low, high, found.reason,
            found.p, None, None, found.detectable, found.videos, found.videos_needed(difference),
        )  # fmt: skip
    level, _, name = metric.partition("_")
    values = [one.value(dataset, level, name) for one in (first, run)]
    change = None if values[0] is None or values[1] is None else values[1] - values[0]
    return Row(dataset, metric, run.label, values[0], values[1], change, reason="no scores to pair")


def _judged(rows: list[Row], declared: str) -> list[Row]:
    tested = [i for i, row in enumerate(rows) if row.metric == declared and row.p is not None]
    adjusted = dict(zip(tested, holm([rows[i].p or 0.0 for i in tested]), strict=True))
    judged = []
    for i, row in enumerate(rows):
        if row.metric != declared or row.change is None:
            judged.append(row)
            continue
        p = adjusted.get(i)
        excluded = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
        word = NOTHING_SHOWN
        if p is not None and p < ALPHA and excluded:
            lower = declared.partition("_")[2] in LOWER_IS_BETTER
            word = "better" if (row.change < 0) == lower else "worse"
        judged.append(replace(row, p_holm=p, verdict=word))
    return judged
