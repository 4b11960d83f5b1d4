"""From the results of a validation to what the engine keeps of them, and what a choice by them is worth."""

from __future__ import annotations

from effort_finetune.evaluate.dataset_results import DatasetResult, DatasetResults
from effort_finetune.train.selection import Measured

_LEVEL = ("auc", "ap", "eer", "acc", "acc_real", "acc_fake", "precision", "recall", "f1")
KEPT = ("loss", *_LEVEL, *(f"video_{name}" for name in _LEVEL))


def numbers_of(result: DatasetResult) -> dict[str, float | None]:
    """Returns what history and TensorBoard keep of a dataset's measurement."""
    return {name: result.metric(name) for name in KEPT}


def measured_of(results: DatasetResults, metric: str) -> Measured:
    """Returns what the engine keeps of a validation.

    Args:
        results: Of every dataset that chooses the checkpoint.
        metric: ``metric_scoring``.
    """
    found = results.datasets
    return Measured(
        values={name: result.metric(metric) for name, result in found.items()},
        numbers={name: numbers_of(result) for name, result in found.items()},
        missing={name: result.block["counts"]["frames_missing"] for name, result in found.items()},
    )
