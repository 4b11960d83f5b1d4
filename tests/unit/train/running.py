"""Runs of the toy data, and what they left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from effort_finetune.evaluate import results as results_file
from effort_finetune.train.finetuning import Outcome, finetune

from .conftest import COMMAND, Bench


def run(bench: Bench, **flags: Any) -> Outcome:
    return finetune(bench.settings(**flags), bench.host, command=COMMAND)


def quick(bench: Bench, **flags: Any) -> Outcome:
    """One epoch, nothing published."""
    return run(bench, **{"nEpochs": 1, "save_to": None, **flags})


def document(outcome: Outcome) -> dict[str, Any]:
    return results_file.read(outcome.results_path)


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)
