"""Weights of a tiny tower and a few pictures, for every test of the predict room."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from effort_finetune.config import Settings
from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector

SIZE = 32
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 16,
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    detector = EffortFinetuneDetector({"resolution": SIZE, "head_width": 16}, tower=random_tower(TOWER))
    path = tmp_path_factory.mktemp("weights") / "effort.pth"
    torch.save(detector.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(device="cpu", precision="float32", workers=0, head_width=16, test_batchSize=5)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Four pictures of 256 px and two of another shape in each class."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(5)
    for label in ("real", "fake"):
        (root / label).mkdir()
        for number in range(6):
            shape = (256, 256, 3) if number < 4 else (90, 140, 3)
            small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            image = cv2.resize(small, shape[1::-1], interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(root / label / f"{label}{number}.png"), image)
    return root
