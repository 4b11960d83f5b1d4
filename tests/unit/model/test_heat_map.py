"""Heat maps: the traced pass is the model, and a map points at what the score hangs on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.model.averaged_maps import blurred
from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.gradient_maps import grad_cam
from effort_finetune.model.heat_map import METHODS, heat_maps, peak, spread
from effort_finetune.model.subject import Subject
from effort_finetune.model.traced_pass import traced_pass

SIDE = 64
#: On the toy below they say nothing: it is sure of its fakes, and where it is sure gradients vanish.
BLUNT = ("input_gradient", "grad_cam", "input_gradient_averaged", "grad_cam_averaged")
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 16,
}


@pytest.fixture(scope="module")
def detector() -> EffortFinetuneDetector:
    torch.manual_seed(5)
    config = {"resolution": SIDE, "head_width": 16}
    detector = EffortFinetuneDetector(config, tower=random_tower(TOWER)).eval()
    for name, value in detector.named_parameters():
        if (name.endswith("weight") and value.dim() > 1) or name.endswith("weight_main"):
            torch.nn.init.normal_(value, std=0.3)  # transformers' own are so small that all scores are equal
    return detector


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _spots(rng: torch.Generator, count: int) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """Noise with a striped patch at a random place of the grid, and where it is."""
    images = torch.randn(count, 3, SIDE, SIDE, generator=rng) * 0.5
    places = [tuple(16 * v for v in torch.randint(4, (2,), generator=rng).tolist()) for _ in range(count)]
    for image, (top, left) in zip(images, places, strict=True):
        image[:, top : top + 16 : 2, left : left + 16] += 2
    return images, places


@pytest.fixture(scope="module")
def spot_detector() -> EffortFinetuneDetector:
    """A detector that learned in a second that a striped patch, anywhere, means fake."""
    torch.manual_seed(2)
    config = {"resolution": SIDE, "head_width": 16}
    detector = EffortFinetuneDetector(config, tower=random_tower({**TOWER, "num_hidden_layers": 2}))
    detector.requires_grad_(True).train()
    optimizer = torch.optim.Adam(detector.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(3)
    for _ in range(80):
        fake, _ = _spots(rng, 16)
        real = torch.randn(16, 3, SIDE, SIDE, generator=rng) * 0.5
        logits = detector({"image": torch.cat([real, fake])})["cls"]
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(32) // 16)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    return detector.eval()


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("conservative", [False, True])
def test_the_traced_pass_scores_as_the_detector(detector, images, merged, conservative):
    if merged:
        detector.merge()
    found = traced_pass(detector, images, conservative=conservative)
    with torch.inference_mode():
        logits = detector({"image": images})["cls"]
    detector.unmerge()
    assert torch.allclose(found.log_odds, logits[:, 1] - logits[:, 0], atol=1e-5)
    assert all(torch.allclose(a.sum(-1), torch.ones(())) for a in found.attention)


def test_the_gradients_are_those_of_the_detector(detector, images):
    image = images.clone().requires_grad_(True)
    logits = detector({"image": image})["cls"]
    (logits[:, 1] - logits[:, 0]).sum().backward()
    assert torch.allclose(traced_pass(detector, images).image_gradient, image.grad, atol=1e-6)
    detector.zero_grad()


def test_a_conservative_pass_shares_out_the_log_odds(detector, images):
    """What gradient times input does not give to tokens is what biases give, whatever the pictures are."""
    found = traced_pass(detector, images, conservative=True)
    shared = (found.states[0] * found.states_gradient[0]).sum(dim=(1, 2))
    moved = found.states[0] * 1.001
    again = _linearised(detector, images, moved)
    assert torch.allclose(again - found.log_odds, 0.001 * shared, atol=2e-5)


def _linearised(detector, images, moved):
    """The score of moved tokens by the first-order step that the gradient promises."""
    found = traced_pass(detector, images, conservative=True)
    return found.log_odds + ((moved - found.states[0]) * found.states_gradient[0]).sum(dim=(1, 2))


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_of_the_crop_and_the_same_for_merged_layers(detector, images, method):
    heat = heat_maps(detector, images, method)
    assert heat.shape == (3, SIDE, SIDE)
    assert heat.dtype == torch.float32
    assert float(heat.min()) >= 0
    assert set(heat.amax(dim=(1, 2)).tolist()) <= {0.0, 1.0}
    with detector.merged(), torch.inference_mode():
        assert torch.allclose(heat_maps(detector, images, method), heat, atol=1e-3)
    assert all(p.grad is None for p in detector.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_the_crops_of_a_batch_do_not_touch_each_other(detector, images, method):
    together = heat_maps(detector, images, method)
    alone = torch.cat([heat_maps(detector, image[None], method) for image in images])
    assert torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in BLUNT])
def test_the_peak_lies_where_the_forgery_is(spot_detector, method):
    images, places = _spots(torch.Generator().manual_seed(9), 40)
    hits = []
    for heat, (top, left) in zip(heat_maps(spot_detector, images, method), places, strict=True):
        row, column = peak(heat)
        hits.append(top <= row < top + 16 and left <= column < left + 16)
    # By chance 2.5 of 40. Occlusion's squares do not lie on the patches' grid.
    assert sum(hits) >= (24 if method == "occlusion" else 34), sum(hits)


def test_nothing_that_speaks_for_fake_gives_a_map_of_zeros():
    heat = spread(torch.full((1, 4, 4), 1e-9), SIDE)
    assert not heat.any()
    assert peak(heat[0]) is None


def test_an_unknown_method_is_named(detector, images):
    with pytest.raises(UserError, match="heat map"):
        heat_maps(detector, images, "tea_leaves")


def test_grad_cam_is_the_papers_formula(detector, images):
    kept = []
    norm = detector.backbone.encoder.layers[-1].layer_norm1
    hook = norm.register_forward_hook(lambda _, __, output: kept.append(output) or output.retain_grad())
    logits = detector({"image": images})["cls"]
    (logits[:, 1] - logits[:, 0]).sum().backward()
    hook.remove()
    detector.zero_grad()
    expected = []
    for activation, gradient in zip(kept[0].detach(), kept[0].grad, strict=True):
        weights = gradient[1:].numpy().mean(axis=0)
        expected.append(np.maximum(activation[1:].numpy() @ weights, 0).reshape(4, 4))
    assert grad_cam(Subject(detector, images)).numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_averaging_draws_no_peak_towards_the_middle():
    assert torch.allclose(blurred(torch.ones(1, 6, 6)), torch.ones(1, 6, 6))
    corner = torch.zeros(1, 6, 6)
    corner[0, 0, 5] = 1
    assert peak(blurred(corner)[0]) == (0, 5)


def test_averaging_turns_the_mirrored_map_back(detector, images):
    heat = heat_maps(detector, images, "token_gradient_averaged")
    again = heat_maps(detector, images.flip(-1), "token_gradient_averaged").flip(-1)
    assert torch.allclose(heat, again, atol=1e-3)
