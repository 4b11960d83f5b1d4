"""Scores the validation videos that a calibration is fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effort_finetune.core.device import choose_device
from effort_finetune.core.errors import UserError
from effort_finetune.evaluate.calibrated_block import kind_of
from effort_finetune.evaluate.evaluation import evaluate_model
from effort_finetune.evaluate.evaluation_inputs import build, prepare
from effort_finetune.evaluate.val_scores import ValScores, joined

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host


def score_val(settings: Settings, host: Host, weights: Path) -> ValScores:
    """Scores the ``val`` split of ``settings.val_dataset``.

    Args:
        settings: Resolved settings.
        host: The open host.
        weights: What is calibrated.

    Raises:
        UserError: If weights or data cannot be used; nothing has been scored then.
        EvaluationFailure: If too many frames are missing.
        Interrupted: After Ctrl-C.
    """
    if not settings.val_dataset:
        raise UserError("--val_dataset", got="no names", expected="the datasets to calibrate on")
    settings, datasets = prepare(settings, host, weights, "val")
    model = build(settings).to(choose_device(settings.device))
    done = evaluate_model(
        model, host, settings, list(datasets), "val", datasets=datasets, bootstrap_samples=0
    )
    parts = []
    for name, result in done.datasets.items():
        assert result.videos is not None, "an evaluation that lacks frames ends above"
        about: dict[str, Any] = {
            "split": "val",
            "real": int(np.sum(result.videos.label == 0)),
            "fake": int(np.sum(result.videos.label == 1)),
            "kind": kind_of(result.block["protocol"]),
            "frames_sha256": result.block["frames_sha256"],
        }
        warnings = tuple(line for line in result.block["warnings"] if "train split" in line)
        parts.append(ValScores(result.videos.label, result.videos.prob, {name: about}, warnings))
    return joined(parts)
