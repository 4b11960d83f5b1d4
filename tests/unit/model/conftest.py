"""Small towers for every test of the model room."""

import pytest
import torch

from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(7)


@pytest.fixture
def tiny_tower():
    return random_tower(TINY)


@pytest.fixture
def make_detector():
    """Builds a tiny detector from settings; the head width is 16."""

    def make(**settings):
        config = {"resolution": 32, "head_width": 16, **settings}
        return EffortFinetuneDetector(config, tower=random_tower(TINY))

    return make


@pytest.fixture
def batch():
    return {"image": torch.randn(4, 3, 32, 32), "label": torch.tensor([0, 1, 1, 0])}
