"""Results of detectors that never ran: drawn scores, measured by the functions that measure real ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.config import Settings
from effort_finetune.core.files import sha256_file
from effort_finetune.core.metrics import TABLE
from effort_finetune.evaluate import results
from effort_finetune.evaluate.calibrated_block import calibrated_block
from effort_finetune.evaluate.calibration import fit
from effort_finetune.evaluate.dataset_block import metric_blocks
from effort_finetune.evaluate.group_rows import group_rows
from effort_finetune.evaluate.robustness import measured
from effort_finetune.evaluate.score_file import write_scores
from effort_finetune.evaluate.video import VideoScores, video_scores

from .conftest import Row, make_scores

GROUPS = ("Real", "Deepfakes", "Face2Face", "NeuralTextures with quite a long name")


def simulated_run(
    template: Mapping[str, Any], folder: Path, sizes: Mapping[str, int], *, frames: int = 8,
    skill: float = 1.5, seed: int = 0, calibrated: bool = False,
    corruptions: tuple[str, ...] = (), epochs: int = 0,
) -> Path:  # fmt: skip
    """Writes a run of so many videos a dataset, half of them real; returns its folder."""
    document = copy.deepcopy(dict(template))
    block = next(iter(document["datasets"].values()))
    settings = Settings(bootstrap_samples=20)
    document["datasets"] = {}
    for number, (name, videos) in enumerate(sizes.items()):
        rng = np.random.default_rng([seed, number])
        ids = np.arange(videos)
        groups = [GROUPS[0] if i % 2 == 0 else GROUPS[1 + i // 2 % 3] for i in ids]
        label = (ids % 2).astype(np.int64)
        level = skill * (label - 0.5) + rng.normal(size=videos)
        rows = [
            Row(f"{name}/{groups[v]}/{v:05d}", int(label[v]), f"{name}/{groups[v]}/{v:05d}/{f:03d}.png", name)
            for v in ids
            for f in range(frames)
        ]
        scores = make_scores(
            np.repeat(level, frames) + rng.normal(size=len(rows)) / 2, np.repeat(label, frames)
        )
        of_video = video_scores(rows, scores)
        made = copy.deepcopy(block)
        made.update(
            metric_blocks(scores, of_video, threshold=0.5, samples=20, seed=0), warnings=[], groups={}
        )
        made["groups"] = group_rows(
            {row.video: row.video.split("/")[1] for row in rows}, of_video, threshold=0.5
        )
        made["counts"] |= {
            "videos_scored": videos, "videos_real": int((label == 0).sum()), "videos_fake": int(label.sum()),
            "frames_listed": len(rows), "frames_scored": len(rows),
        }  # fmt: skip
        file = folder / "scores" / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_scores(file, rows, scores)
        made["scores"], made["scores_sha256"] = f"scores/{name}.csv", sha256_file(file)
        if calibrated:
            fitted = fit(of_video.label, of_video.prob)
            made["calibrated"] = calibrated_block(fitted, of_video.label, of_video.prob)
        if corruptions:
            made["robustness"] = {
                "corruptions": {c: _corrupted(c, of_video, rng, settings) for c in corruptions},
                "left_out": {},
            }
        document["datasets"][name] = made
    if epochs:
        document["kind"], document["training"] = "finetuning", _training(next(iter(sizes)), epochs, seed)
    for level in ("frame", "video"):
        average: dict[str, Any] = {**document["average"][level], "null_reasons": {}}
        for metric in TABLE:
            values = [made[level][metric] for made in document["datasets"].values()]
            average[metric] = None if None in values else float(np.mean(values))
            if None in values:
                average["null_reasons"][metric] = "a dataset has none"
        document["average"][level] = average
    path = folder / "results.json"
    assert not list(results.validate(document))
    path.write_text(json.dumps(document))
    return folder


def _corrupted(name: str, raw: VideoScores, rng: np.random.Generator, settings: Settings) -> dict[str, Any]:
    odds = np.log(raw.prob / (1 - raw.prob))
    curve = [
        VideoScores(raw.video, raw.label, 1 / (1 + np.exp(-odds - rng.normal(size=len(odds)) * level)),
                    raw.frames, raw.video_of_frame)
        for level in range(1, 6)
    ]  # fmt: skip
    return measured(name, raw, curve, settings)


def _training(dataset: str, epochs: int, seed: int) -> dict[str, Any]:
    def entry(epoch: int | str, value: float) -> dict[str, Any]:
        return {
            "epoch": epoch, "selection": {dataset: {"video_auc": value}}, "selection_missing": {dataset: 0},
            "selection_value": value, "selection_seconds": 1.0,
        }  # fmt: skip

    rng = np.random.default_rng(seed)
    values = np.sort(rng.uniform(0.6, 0.95, epochs))
    history = [
        {
            **entry(i + 1, float(v)),
            "lr": 1e-4,
            "rates": [],
            "selected": i == epochs - 2,
            "train": {"loss": {"overall": 1 - float(v)}},
        }
        for i, v in enumerate(values)
    ]
    return {"start": entry("start", 0.55), "history": history, "selection": {"metric": "video_auc"}}
