"""Weights of a tiny tower and a few pictures, for every test of the predict room."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from toytower import save_toy_weights

from effort_finetune.config import Settings


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    return save_toy_weights(tmp_path_factory.mktemp("weights") / "effort.pth")


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
