"""One self-contained HTML page of any number of runs, the first of which the others are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import LINE_LIMIT, visible
from effort_finetune.core.files import write_text
from effort_finetune.evaluate import plots, report_sentences, report_tables, results, run_plots
from effort_finetune.evaluate.compared_runs import Run
from effort_finetune.evaluate.crops import crop_rows
from effort_finetune.evaluate.report_videos import BUDGET, video_table
from effort_finetune.evaluate.score_file import ScoreFile
from effort_finetune.evaluate.svg import COLOURS
from effort_finetune.evaluate.table import calibrated_lines, protocol_differences

if TYPE_CHECKING:
    from effort_finetune.data.frames import FrameDataset

#: Sentences and datasets that stand open; further ones are folded.
OPEN = 12


def write_html(
    path: Path | str,
    sources: Sequence[Path | str],
    *,
    labels: Sequence[str] = (),
    frames: Mapping[str, FrameDataset] | None = None,
    no_frames: Mapping[str, str] | None = None,
    documents: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes the report.

    Args:
        path: File to write.
        sources: Results files or their folders. Score files are found beside them.
        labels: A name for each; by default none for one, ``before`` and ``after`` for two, and of more the
            names of their folders.
        frames: Datasets whose crops are shown, by name.
        no_frames: Why a dataset's crops cannot be shown, by name.
        documents: What the files hold, where somebody read them before.

    Returns:
        The path.

    Raises:
        UserError: If there is none, a results or score file cannot be used, or the labels do not fit.
    """
    if not sources:
        raise UserError("report", got="no results file", expected="one or more")
    names = list(labels) or _labels([Path(source) for source in sources])
    if len(names) != len(sources) or len(set(names)) != len(names):
        raise UserError(
            "--labels", got=f"{len(names)} labels, {len(set(names))} different",
            expected=f"{len(sources)}, one a results file and no two alike",
        )  # fmt: skip
    read = documents or [results.read(source) for source in sources]
    runs = [
        Run(visible(label), path / "results.json" if path.is_dir() else path, document, False)
        for label, path, document in zip(names, map(Path, sources), read, strict=True)
    ]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_seen
    )
    page = _page(runs, frames or {}, no_frames or {})
    return write_text(path, environment.from_string(_kit("report_template.html")).render(**page))


def _labels(sources: Sequence[Path]) -> list[str]:
    if len(sources) < 3:
        return ["", "before", "after"][len(sources) - 1 :][: len(sources)]
    folders = [(source if source.is_dir() else source.parent).resolve().name for source in sources]
    alike = len(set(folders)) < len(folders)
    return [f"{name} ({i})" if alike else name for i, name in enumerate(folders, start=1)]


def _seen(value: Any) -> Any:
    """Makes every character of a text visible; what is markup already was made so."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, limit=None, keep="\n")
    return value


def _kit(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _page(
    runs: Sequence[Run], frames: Mapping[str, FrameDataset], no_frames: Mapping[str, str]
) -> dict[str, Any]:
    documents = [run.document for run in runs]
    last = documents[-1]
    names = list(dict.fromkeys(name for document in documents for name in document["datasets"]))
    labelled = [(run.label, run.document) for run in runs]
    title = "Evaluation of a detector"
    if len(runs) > 1:
        title = "Fine-tuning: before and after" if runs[0].label == "before" else f"{len(runs)} runs compared"
    return {
        "title": title,
        "css": Markup(_kit("report.css")),
        "script": Markup(_kit("report.js")),
        "runs": runs,
        "colours": COLOURS,
        "document": last,
        "open": OPEN,
        "summary_head": report_tables.summary_head(),
        "summary": report_tables.summary(runs, names),
        "decided": report_sentences.decided(runs),
        "differences": protocol_differences(documents, [run.label for run in runs]),
        "training": [Markup(svg) for svg in run_plots.training_svgs(labelled)],
        "datasets": [
            _dataset(runs, name, frames.get(name), no_frames.get(name), BUDGET // len(names))
            for name in names
        ],
        "decision_head": report_tables.DECISION_HEAD,
        "protocol": _plain(last["protocol"]),
        "settings": yaml.safe_dump(dict(last["settings"]), sort_keys=False, allow_unicode=True),
        "provenance": _provenance(runs),
    }


def _dataset(
    runs: Sequence[Run], name: str, frames: FrameDataset | None, no_frames: str | None, room: int
) -> dict[str, Any]:
    scores = [run.scores(name) for run in runs]
    last = next(run for run in reversed(runs) if name in run.document["datasets"])
    block, own = last.document["datasets"][name], last.scores(name)
    labelled = [(run.label, run.document) for run in runs]
    crops = [] if own is None else crop_rows(name, own, frames, threshold=last.threshold)
    return {
        "name": name,
        "block": block,
        "shown": last.label,
        "warnings": report_sentences.warnings_of(labelled, name),
        "notes": report_sentences.notes(runs, name),
        "calibrated": calibrated_lines(name, block.get("calibrated")),
        "figures": [Markup(svg) for svg in _figures(runs, name, scores)],
        "robustness": [Markup(svg) for svg in run_plots.robustness_svgs(labelled, name)],
        "decisions": report_tables.decisions(runs, name),
        "metrics": report_tables.every_metric(runs, name),
        "crops": crops,
        "no_crops": no_frames,
        "videos": video_table(name, scores[: runs.index(last) + 1], last.threshold, room=room),
        "runs": runs[: runs.index(last) + 1],
    }


def _figures(runs: Sequence[Run], name: str, scores: Sequence[ScoreFile | None]) -> list[str]:
    """Draws everything that the scores of a dataset tell; what cannot be drawn is left out."""
    curves, reliable, drawn = [], [], []
    for i, (run, own) in enumerate(zip(runs, scores, strict=True)):
        if own is None:
            continue
        block = run.document["datasets"][name]
        label, prob = own.by_video()
        word = run.label or "this run"
        curves.append(plots.Curve(word, i, "video", label, prob, block["video"]["auc"]))
        curves.append(plots.Curve(word, i, "frame", own.label, own.prob, block["frame"]["auc"]))
        reliable.append((word, i, label, prob))
        title = f"Video scores {run.label}".strip()
        drawn.append(plots.histogram_svg(label, prob, thresholds=report_tables.thresholds(run), title=title))
    points = report_tables.operating_points(runs, name)
    labelled = [(run.label, run.document) for run in runs]
    blocks = [(run.document["datasets"].get(name) or {}).get("calibrated") for run in runs]
    figures = [
        plots.roc_svg(curves, points),
        plots.det_svg(curves, points),
        plots.precision_recall_svg(curves),
        plots.reliability_svg(reliable, blocks),
        *drawn,
        run_plots.group_svg(labelled, name, "auc", "Video AUC of each label group"),
        run_plots.group_svg(labelled, name, "acc", "Video ACC of each label group"),
    ]
    return [svg for svg in figures if svg]


def _provenance(runs: Sequence[Run]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for run in runs:
        document, prefix = run.document, f"{run.label}: " if run.label else ""
        if checkpoint := document["checkpoint"]:
            rows.append((f"{prefix}checkpoint", f"{checkpoint['path']} ({checkpoint['layout']})"))
            rows.append((f"{prefix}SHA-256", checkpoint["sha256"]))
        rows.append((f"{prefix}created", document["created"]))
        if document["command"]:
            rows.append((f"{prefix}command", visible(" ".join(document["command"]), limit=LINE_LIMIT)))
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
