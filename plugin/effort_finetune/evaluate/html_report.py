"""One self-contained HTML page of a run, or of a run before and one after fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import write_text
from effort_finetune.evaluate import plots, results
from effort_finetune.evaluate.crops import CropRow, crop_rows
from effort_finetune.evaluate.score_file import ScoreFile, read_scores
from effort_finetune.evaluate.table import difference, interval, lookup, number, protocol_differences

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset

#: Columns of the summary: metric and heading.
SUMMARY = (
    ("video_auc", "Video AUC"),
    ("frame_auc", "Frame AUC"),
    ("video_ap", "Video AP"),
    ("video_eer", "Video EER"),
    ("video_acc", "Video ACC"),
    ("video_acc_real", "ACC real"),
    ("video_acc_fake", "ACC fake"),
    ("video_precision", "Precision"),
    ("video_recall", "Recall"),
    ("video_f1", "F1"),
)


@dataclass(frozen=True)
class Run:
    """A results file with its score files."""

    label: str
    document: Mapping[str, Any]
    scores: Mapping[str, ScoreFile]


def write_html(
    path: Path | str,
    sources: Sequence[Path | str],
    *,
    labels: Sequence[str] = (),
    frames: Mapping[str, FrameDataset] | None = None,
    no_frames: Mapping[str, str] | None = None,
) -> Path:
    """Writes the report.

    Args:
        path: File to write.
        sources: One results file, or two: before and after. Score files are found beside them.
        labels: A name for each; by default none for one, ``before`` and ``after`` for two.
        frames: Datasets whose crops are shown, by name.
        no_frames: Why a dataset's crops cannot be shown, by name.

    Returns:
        The path.

    Raises:
        UserError: If a results or score file cannot be used, or there are not one or two.
    """
    if len(sources) not in (1, 2):
        raise UserError(
            "report", got=f"{len(sources)} results files", expected="one, or two: before and after"
        )
    labels = tuple(labels) or (("",) if len(sources) == 1 else ("before", "after"))
    if len(labels) != len(sources):
        raise UserError(
            "--labels", got=f"{len(labels)} labels", expected=f"{len(sources)}, one a results file"
        )
    runs = [_open(Path(source), label) for source, label in zip(sources, labels, strict=True)]
    page = _page(runs, frames or {}, no_frames or {})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files(__package__).joinpath("report_template.html").read_text(encoding="utf-8")
    return write_text(path, environment.from_string(source).render(**page))


def _open(path: Path, label: str) -> Run:
    document = results.read(path)
    folder = path if path.is_dir() else path.parent
    scores = {
        name: read_scores(folder / block["scores"], sha256=block.get("scores_sha256"))
        for name, block in document["datasets"].items()
        if block["scores"] is not None and block["status"] == "complete"
    }
    return Run(label, document, scores)


def _page(
    runs: Sequence[Run], frames: Mapping[str, FrameDataset], no_frames: Mapping[str, str]
) -> dict[str, Any]:
    documents = [run.document for run in runs]
    last = documents[-1]
    names = list(dict.fromkeys(name for document in documents for name in document["datasets"]))
    return {
        "title": "Fine-tuning: before and after" if len(runs) == 2 else "Evaluation of a detector",
        "runs": runs,
        "document": last,
        "summary_head": [heading for _, heading in SUMMARY],
        "summary": _summary(runs, names),
        "differences": protocol_differences(documents, [run.label for run in runs]),
        "datasets": [
            _dataset(runs, name, f"d{i}", frames.get(name), no_frames.get(name))
            for i, name in enumerate(names)
        ],
        "protocol": _plain(last["protocol"]),
        "settings": yaml.safe_dump(dict(last["settings"]), sort_keys=False, allow_unicode=True),
        "provenance": _provenance(runs),
    }


def _summary(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the first table's rows: each dataset's, and the averages of the runs that measured them all."""

    def averaged(document: Mapping[str, Any], metric: str) -> float | None:
        level, _, name = metric.partition("_")
        return document["average"][level][name] if set(names) <= set(document["datasets"]) else None

    def of(name: str) -> Callable[[Mapping[str, Any], str], float | None]:
        return lambda document, metric: lookup(document, name, metric)

    rows = [row for name in names for row in _rows(runs, name, of(name))]
    return rows + _rows(runs, "average", averaged) if len(names) > 1 else rows


def _rows(
    runs: Sequence[Run], name: str, value_of: Callable[[Mapping[str, Any], str], float | None]
) -> list[dict[str, Any]]:
    rows = []
    for run in runs:
        cells = []
        for metric, _ in SUMMARY:
            bounds = _interval(run.document, name, metric) if metric == "video_auc" else None
            text = number(value_of(run.document, metric))
            cells.append({"text": text, "note": interval(bounds) if bounds else "", "tone": ""})
        rows.append({"dataset": name, "label": run.label, "cells": cells, "change": False})
    if len(runs) == 2:
        cells = []
        for metric, _ in SUMMARY:
            before, after = (value_of(run.document, metric) for run in runs)
            text = difference(before, after, metric)
            change, _, tone = text.partition(" ")
            cells.append({"text": change, "note": "", "tone": tone})
        rows.append({"dataset": name, "label": "change", "cells": cells, "change": True})
    return rows


def _interval(document: Mapping[str, Any], name: str, metric: str) -> list[float] | None:
    level, _, key = metric.partition("_")
    block = document["datasets"].get(name, {}).get(level)
    return None if block is None else block["ci95"]["intervals"][key]


def _dataset(
    runs: Sequence[Run], name: str, identifier: str, frames: FrameDataset | None, no_frames: str | None
) -> dict[str, Any]:
    curves, histograms = [], []
    for i, run in enumerate(runs):
        if name not in run.scores:
            continue
        scores = run.scores[name]
        block = run.document["datasets"][name]
        label, prob = scores.by_video()
        word = run.label or "this run"
        curves.append(plots.Curve(word, i, "video", label, prob, block["video"]["auc"]))
        curves.append(plots.Curve(word, i, "frame", scores.label, scores.prob, block["frame"]["auc"]))
        histograms.append(
            plots.histogram_svg(
                label,
                prob,
                threshold=run.document["protocol"]["threshold"],
                title=f"Video scores {run.label}".strip(),
                identifier=f"{identifier}-h{i}",
            )
        )
    last = next(run for run in reversed(runs) if name in run.document["datasets"])
    crops: list[CropRow] = []
    if frames is not None and name in last.scores:
        crops = crop_rows(last.scores[name], frames, threshold=last.document["protocol"]["threshold"])
    block = last.document["datasets"][name]
    return {
        "name": name,
        "block": block,
        "warnings": _warnings(runs, name),
        "notes": _notes(block),
        "figures": [
            Markup(svg) for svg in (plots.roc_svg(curves, identifier=f"{identifier}-r"), *histograms) if svg
        ],
        "crops": crops,
        "crops_of": last.label,
        "no_crops": no_frames,
    }


def _warnings(runs: Sequence[Run], name: str) -> list[str]:
    """What taints the numbers of a dataset, with the runs whose numbers they are."""
    carriers: dict[str, list[str]] = {}
    for run in runs:
        for warning in run.document["datasets"].get(name, {}).get("warnings", ()):
            carriers.setdefault(warning, []).append(run.label)
    return [f"{', '.join(labels)}: {text}" if any(labels) else text for text, labels in carriers.items()]


def _notes(block: Mapping[str, Any]) -> list[str]:
    """Why numbers of the summary are missing, one line a reason."""
    shown = {metric.partition("_")[2] for metric, _ in SUMMARY}
    notes: dict[tuple[str, str], list[str]] = {}
    for level in ("video", "frame"):
        for metric, reason in (block[level] or {}).get("null_reasons", {}).items():
            if metric in shown:
                notes.setdefault((level, reason), []).append(metric)
    return [f"{level} {', '.join(metrics)}: {reason}" for (level, reason), metrics in notes.items()]


def _provenance(runs: Sequence[Run]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for run in runs:
        document, prefix = run.document, f"{run.label}: " if run.label else ""
        if checkpoint := document["checkpoint"]:
            rows.append((f"{prefix}checkpoint", f"{checkpoint['path']} ({checkpoint['layout']})"))
            rows.append((f"{prefix}SHA-256", checkpoint["sha256"]))
        rows.append((f"{prefix}created", document["created"]))
        if document["command"]:
            rows.append((f"{prefix}command", " ".join(document["command"])))
    document = runs[-1].document
    for key in ("code", "host", "device"):
        rows.append((key, ", ".join(f"{k} {v}" for k, v in _plain(document[key] or {}))))
    rows.append(("libraries", ", ".join(f"{k} {v}" for k, v in document["libraries"].items() if v)))
    rows.append(("settings digest", document["settings_digest"]))
    return rows


def _plain(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns a block as keys and text, a nested one in one line; what is empty is left out."""
    return [
        (key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value))
        for key, value in mapping.items()
        if value not in (None, [], {}, "")
    ]
