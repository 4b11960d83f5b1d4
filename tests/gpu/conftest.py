"""The accelerator the tests in this folder run on; without one they are skipped and say so.

pytest tests/gpu                                 # CUDA, else MPS
EFFORT_FINETUNE_TEST_DEVICE=cpu pytest tests/gpu # checks the tests themselves
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import toyhost
from toyhost import EMBEDDED

from effort_finetune.core.device import choose_device
from effort_finetune.host import open_host

LABELS = {"Toy_Real": 0, "Toy_Fake": 1}


@pytest.fixture(scope="session")
def device() -> torch.device:
    asked = os.environ.get("EFFORT_FINETUNE_TEST_DEVICE")
    found = choose_device(asked or "auto")
    if found.type == "cpu" and not asked:
        pytest.skip("this machine has neither a CUDA nor an MPS device")
    return found


class Bench(toyhost.Bench):
    """A toy dataset and tower; two steps of four frames an epoch."""

    @property
    def defaults(self) -> dict[str, Any]:
        return {
            **self.training(LABELS),
            "test_dataset": ["Toy"],
            "frame_num": {"train": 2, "test": 3},
            "workers": 2,
            "save_to": None,
        }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    videos = toyhost.list_videos("Toy", LABELS, {"train": 2, "val": 2, "test": 2})
    toyhost.write_dataset(tmp_path, "Toy", videos, toyhost.noise(LABELS))
    toyhost.save_clip(tmp_path / "clip")
    return Bench(open_host(EMBEDDED), tmp_path)
