"""Scores the validation videos that a calibration is fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from effort_finetune.core.device import choose_device
from effort_finetune.core.errors import UserError
from effort_finetune.core.weighted import FloatArray, IntArray
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
    parts = []
    for name in datasets:
        with _features(model) as kept:
            done = evaluate_model(
                model, host, settings, [name], "val", datasets=datasets, bootstrap_samples=0
            )
        result = done.datasets[name]
        assert result.videos is not None, "an evaluation that lacks frames ends above"
        about: dict[str, Any] = {
            "split": "val",
            "real": int(np.sum(result.videos.label == 0)),
            "fake": int(np.sum(result.videos.label == 1)),
            "kind": kind_of(result.block["protocol"]),
            "frames_sha256": result.block["frames_sha256"],
        }
        warnings = tuple(line for line in result.block["warnings"] if "train split" in line)
        numbers: dict[str, int] = {}
        index = np.concatenate([rows for rows, _ in kept])
        video = [numbers.setdefault(datasets[name].rows[i].video, len(numbers)) for i in index]
        parts.append(
            ValScores(
                result.videos.label, result.videos.prob, {name: about}, warnings,
                np.concatenate([found for _, found in kept]), np.array(video, dtype=np.int64),
            )
        )  # fmt: skip
    return joined(parts)


@contextmanager
def _features(model: nn.Module) -> Iterator[list[tuple[IntArray, FloatArray]]]:
    """Collects place in the dataset and features of every frame that is scored within."""
    kept: list[tuple[IntArray, FloatArray]] = []

    def keep(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        index, found = given[0]["index"], output["feat"]
        kept.append((index.cpu().numpy().astype(np.int64), found.float().cpu().numpy().astype(np.float64)))

    hook = model.register_forward_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()
