"""Small towers for every test of the model room."""

import pytest
import torch
from toytower import HEAD, SHAPE, SIZE

from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(7)


@pytest.fixture
def tiny_tower():
    return random_tower(SHAPE)


@pytest.fixture
def make_detector():
    """Builds a tiny detector from settings; the head width is 16."""

    def make(**settings):
        return EffortFinetuneDetector(
            {"resolution": SIZE, "head_width": HEAD, **settings}, tower=random_tower(SHAPE)
        )

    return make


@pytest.fixture
def batch():
    return {"image": torch.randn(4, 3, 32, 32), "label": torch.tensor([0, 1, 1, 0])}
