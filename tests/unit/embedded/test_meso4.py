"""MesoNet-4: the paper's architecture, and the contract of a detector."""

from __future__ import annotations

import pytest
import torch
import yaml


@pytest.fixture
def make_detector(training):
    from detectors import DETECTOR

    config = yaml.safe_load((training / "config/detector/meso4.yaml").read_text())
    return lambda **changes: DETECTOR["meso4"]({**config, **changes})


def test_architecture(make_detector):
    backbone = make_detector().backbone
    convolutions = [layer for layer in backbone.blocks if isinstance(layer, torch.nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0]) for c in convolutions] == [(8, 3), (8, 5), (16, 5), (16, 5)]
    assert backbone.blocks(torch.zeros(1, 3, 256, 256)).shape == (1, 16, 8, 8)
    linear = [layer for layer in backbone.modules() if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(1024, 16), (16, 2)]


@pytest.mark.parametrize("resolution", [32, 224, 256])
def test_contract(make_detector, resolution):
    detector = make_detector(resolution=resolution)
    image = torch.rand(2, 3, resolution, resolution)
    batch = {"image": image, "label": torch.tensor([0, 1]), "landmark": None, "mask": None}
    predictions = detector(batch)
    assert {name: tuple(value.shape) for name, value in predictions.items()} == {
        "cls": (2, 2),
        "prob": (2,),
        "feat": (2, 16),
    }
    assert torch.allclose(predictions["prob"], predictions["cls"].softmax(1)[:, 1])
    losses = detector.get_losses(batch, predictions)
    losses["overall"].backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert set(detector.get_train_metrics(batch, predictions)) == {"acc", "auc", "eer", "ap"}


def test_too_small(make_detector):
    with pytest.raises(ValueError, match="at least 32"):
        make_detector(resolution=16)


def test_a_detector_must_offer_everything():
    from detectors import AbstractDetector

    class Half(AbstractDetector):
        def features(self, data_dict): ...

    with pytest.raises(TypeError, match="abstract"):
        Half()
