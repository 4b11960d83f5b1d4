"""Scores of any detector as a results file equal in kind to our own: same metrics, intervals, schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.config import Settings
from effort_finetune.core.counted import counted
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.escaping import visible
from effort_finetune.core.files import sha256_file
from effort_finetune.core.verdict_rule import strict_threshold
from effort_finetune.data.collect import FrameRow
from effort_finetune.data.dataset_name import file_stem
from effort_finetune.evaluate import results, table
from effort_finetune.evaluate.calibrated_block import calibrated_block, calibration_warnings, kind_of
from effort_finetune.evaluate.dataset_block import counts_of, metric_blocks
from effort_finetune.evaluate.dataset_results import DatasetResult, DatasetResults
from effort_finetune.evaluate.evaluation_record import output_folder
from effort_finetune.evaluate.foreign_scores import Columns, ForeignRow, ForeignScores, by_dataset
from effort_finetune.evaluate.group_rows import group_rows
from effort_finetune.evaluate.predictions import Scores, cross_entropy
from effort_finetune.evaluate.protocol import auc_warnings, class_warnings, imported_protocol
from effort_finetune.evaluate.score_file import frames_digest, write_scores
from effort_finetune.evaluate.video import VideoScores, video_scores
from effort_finetune.weights.stored_calibration import StoredCalibration

LAYOUT = "imported scores"


@dataclass(frozen=True)
class ImportJob:
    """How the scores of one detector become results.

    Attributes:
        path: The file of scores.
        detector: What the detector is called.
        columns: What the file's columns are called.
        dataset: Name of the rows that name none.
        threshold: Of its verdicts.
        rule: ``>`` or ``>=``.
        max_missing_rate: Above this share of rows without a score a dataset fails.
        bootstrap_samples: Resamples of the intervals.
        seed: Of the resamples.
        split: What the rows are: ``test``, or ``val`` to calibrate on.
        calibration: Temperature, bias and thresholds that were fitted elsewhere.
    """

    path: Path
    detector: str
    columns: Columns
    dataset: str
    threshold: float
    rule: str
    max_missing_rate: float
    bootstrap_samples: int
    seed: int
    split: str = "test"
    calibration: StoredCalibration | None = None


def import_scores(
    job: ImportJob, found: ForeignScores, output_dir: Path | str, *, command: Sequence[str] = ()
) -> Path | None:
    """Measures scores and writes ``results.json`` and ``scores/*.csv``.

    Args:
        job: How to read them.
        found: The rows of ``job.path``.
        output_dir: The folder; what an earlier run left in it is archived.
        command: The command line, for the record.

    Returns:
        Path of ``results.json``; ``None`` where no row has a score, and nothing is written then.

    Raises:
        UserError: If the folder cannot be used.
        RunFailure: If a dataset lacks more scores than allowed; what there is was written.
    """
    parts = dict(by_dataset(found.rows, job.dataset))
    scored = {name: rows for name, rows in parts.items() if any(row.prob is not None for row in rows)}
    if not scored:
        return None
    notes = [f"{name}: none of {len(parts[name])} rows has a score" for name in parts if name not in scored]
    notes += [f"{counted(found.left_out, 'row')} left out by --where"] if found.left_out else []
    with output_folder(output_dir) as folder:
        measured = {name: _measured(job, name, rows, folder) for name, rows in scored.items()}
        reasons = [result.block["reason"] for result in measured.values() if result.block["reason"]]
        document = _document(job, measured, notes, command, reasons[0] if reasons else None)
        path = results.write(folder / "results.json", document)
    print(table.results_table(document))
    for note in notes:
        print(f"note: {visible(note)}")
    if reasons:
        raise RunFailure(f"{reasons[0]}; what there is: {path}")
    return path


def _measured(job: ImportJob, name: str, rows: Sequence[ForeignRow], folder: Path) -> DatasetResult:
    frames = [_frame_row(job, name, row, number) for number, row in enumerate(rows)]
    index = np.array([i for i, row in enumerate(rows) if row.prob is not None], dtype=np.int64)
    prob = np.array([row.prob for row in rows if row.prob is not None], dtype=np.float64)
    label = np.array([rows[i].label for i in index], dtype=np.int64)
    with np.errstate(divide="ignore"):
        logit = np.log(prob) - np.log1p(-prob)
    missing = sorted(set(range(len(rows))) - set(index.tolist()))
    scores = Scores(index, prob, logit, label, cross_entropy(logit, label), missing)
    videos = video_scores(frames, scores)
    listed = len({row.video for row in rows})
    file = f"scores/{file_stem(name)}.csv"
    write_scores(folder / file, frames, scores)
    rate = len(missing) / len(rows)
    block: dict[str, Any] = {
        "status": "complete",
        "reason": None,
        "split": job.split,
        "counts": counts_of(frames, listed, None, scores, videos),
        "missing": [frames[i].path for i in missing],
        "frame": None,
        "video": None,
        "loss": None,
        "host_metrics": None,
        "warnings": class_warnings(name, videos.label),
        "protocol": {"source": f"scores of {visible(job.path.name)}"},
        "frames_sha256": frames_digest(frames[i] for i in scores.index),
        "scores": file,
        "scores_sha256": sha256_file(folder / file),
        "timings": None,
    }
    if rate > job.max_missing_rate:
        block["status"] = "failed"
        block["reason"] = (
            f"{len(missing)} of {len(rows)} rows of {visible(name)} have no score of {visible(job.detector)} "
            f"({rate:.2%}, allowed {job.max_missing_rate:.2%}); next: --max_missing_rate, or leave them out "
            "with --where"
        )
        return _result(name, block, scores, None)
    strict = strict_threshold(job.threshold, job.rule)
    block |= metric_blocks(
        scores, videos, threshold=strict, samples=job.bootstrap_samples, seed=job.seed
    )  # fmt: skip
    block["warnings"] += auc_warnings(name, block)
    if job.calibration is not None:
        block["calibrated"] = calibrated_block(job.calibration, videos.label, videos.prob)
        kind = kind_of(block["protocol"])
        block["warnings"] += calibration_warnings(job.calibration, name, kind, block["frames_sha256"])
    groups = {frame.video: frame.label_name for frame in frames}
    block["groups"] = group_rows(groups, videos, threshold=strict)
    block["host_metrics"] = {"values": None, "null_reasons": {"get_test_metrics": "imported scores, no host"}}
    return _result(name, block, scores, videos)


def _result(name: str, block: dict[str, Any], scores: Scores, videos: VideoScores | None) -> DatasetResult:
    # There are no frames to read again, and nothing that is done with imported scores asks for them.
    return DatasetResult(name, block, None, scores, videos)  # type: ignore[arg-type]


def _frame_row(job: ImportJob, name: str, row: ForeignRow, number: int) -> FrameRow:
    group = row.group or ("fake" if row.label else "real")
    frame = row.frame or f"{row.video}#{number}"
    return FrameRow(name, frame, row.label, row.label, group, row.video, job.split)


def _document(
    job: ImportJob,
    measured: Mapping[str, DatasetResult],
    notes: Sequence[str],
    command: Sequence[str],
    reason: str | None,
) -> dict[str, Any]:
    settings = Settings(
        model_name=job.detector, test_dataset=tuple(measured), threshold=job.threshold, manualSeed=job.seed,
        bootstrap_samples=job.bootstrap_samples, max_missing_rate=job.max_missing_rate,
    )  # fmt: skip
    columns = replace(job.columns, where=dict(job.columns.where))
    return results.assemble(
        kind="import",
        settings=settings,
        host={"name": "none, scores of another program", "kind": "import", "commit": None, "dirty": None},
        results=DatasetResults(measured),
        protocol={
            **imported_protocol(
                threshold=job.threshold,
                rule=job.rule,
                bootstrap_samples=job.bootstrap_samples,
                seed=job.seed,
                max_missing_rate=job.max_missing_rate,
                split=job.split,
                source=f"column {columns.prob}" + (", log-odds" if columns.logits else ""),
            ),
            "notes": list(notes) or None,
        },
        checkpoint={
            "path": str(job.path),
            "sha256": sha256_file(job.path),
            "layout": LAYOUT,
            "detector": job.detector,
            "asked_for": job.detector,
        },
        device=None,
        timings={},
        command=command,
        status="complete" if reason is None else "failed",
        reason=reason,
    )
