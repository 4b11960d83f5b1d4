"""Plain sentences of a report: what its numbers decide, what they do not, and what keeps them from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effort_finetune.core.metrics import TABLE
from effort_finetune.evaluate import table
from effort_finetune.evaluate.compared_runs import Run
from effort_finetune.evaluate.comparison import compare
from effort_finetune.evaluate.comparison_text import said
from effort_finetune.evaluate.svg import joined


def decided(runs: Sequence[Run]) -> list[str]:
    """Returns a sentence for each dataset on what its videos tell of a run, or of each against the first.

    Args:
        runs: One run, or several of which the first is what the others are compared with.

    Raises:
        UserError: If a score file is damaged.
    """
    if len(runs) > 1:
        comparison = compare(runs, [])
        return [*said(comparison), *comparison.notes]
    return [
        f"{name}: {_alone(block)}"
        for name, block in runs[0].document["datasets"].items()
        if block["status"] == "complete"
    ]


def warnings_of(runs: Sequence[tuple[str, Mapping[str, Any]]], name: str) -> list[str]:
    """Returns what taints the numbers of a dataset, with the runs whose numbers they are.

    Args:
        runs: Name and results document of each run.
        name: The dataset.
    """
    carriers: dict[str, list[str]] = {}
    for label, document in runs:
        for warning in (document["datasets"].get(name) or {}).get("warnings", ()):
            carriers.setdefault(warning, []).append(label)
    return [f"{', '.join(labels)}: {text}" if any(labels) else text for text, labels in carriers.items()]


def notes(runs: Sequence[Run], name: str) -> list[str]:
    """Returns why numbers of the summary are missing, one line a reason."""
    shown = [metric for metric, _ in table.COLUMNS]
    levels: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        block = run.document["datasets"].get(name) or {}
        for level in ("video", "frame"):
            for metric, reason in ((block.get(level) or {}).get("null_reasons") or {}).items():
                own = levels.setdefault((metric, reason), [])
                if metric in shown and level not in own:
                    own.append(level)
    metrics: dict[tuple[str, str], list[str]] = {}
    for (metric, reason), own in levels.items():
        if own:
            metrics.setdefault((" and ".join(own), reason), []).append(TABLE[metric].title)
    return [f"{level} {joined(titles)}: {why}" for (level, why), titles in metrics.items()]


def _alone(block: Mapping[str, Any]) -> str:
    counts, video = block["counts"], block["video"]
    size = f"{counts['videos_real']} real and {counts['videos_fake']} fake videos"
    if video["auc"] is None:
        return f"no video AUC of {size}: {video['null_reasons']['auc']}"
    bounds = video["ci95"]["intervals"].get("auc")
    if bounds is None:
        why = video["ci95"]["null_reasons"].get("auc", "there is no interval")
        return f"video AUC {video['auc']:.3f} of {size}, how sure it is cannot be said: {why}"
    low, high = bounds
    word = (
        "better than chance" if low > 0.5 else "worse than chance: fakes score lower than reals" if high < 0.5
        else "chance, .5, is not excluded"
    )  # fmt: skip
    return (
        f"{word}; {size} place the video AUC, {video['auc']:.3f}, between {low:.3f} and {high:.3f}: an AUC "
        f"from elsewhere that lies in there is not told apart from it"
    )
