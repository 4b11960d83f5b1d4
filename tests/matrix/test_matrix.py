"""Targets x rank x dtype x file layout: the invariants every combination keeps.

* a fresh detector scores as the dense tower it was made of;
* merged and factored weights score alike;
* exactly residuals and head have gradients;
* what is saved in any layout of the file loads to the same scores.
"""

import copy

import pytest
import torch
from safetensors.torch import save_file
from toytower import SHAPE

from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.layers import residual_layers

TARGETS = {
    "attention": ["self_attn.*_proj"],
    "mlp": ["mlp.fc?"],
    "mixed": ["self_attn.[qv]_proj", "mlp.fc2"],
}
RANKS = [1, 4, 16]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.1}
LAYOUTS = {
    "deepfakebench": lambda state, path: torch.save(state, path),
    "ddp": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "wrapped": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "safetensors": lambda state, path: save_file({k: v.contiguous() for k, v in state.items()}, path),
}

every_case = pytest.mark.parametrize(
    ("targets", "rank", "dtype"),
    [
        pytest.param(TARGETS[name], rank, dtype, id=f"{name}-{rank}-{str(dtype).removeprefix('torch.')}")
        for name in TARGETS
        for rank in RANKS
        for dtype in TOLERANCE
    ],
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(targets, rank, dtype):
    """A detector over a tower of a dtype, the dense tower itself, and images."""
    tower = random_tower(SHAPE).to(dtype)
    dense = copy.deepcopy(tower)
    config = {"resolution": 32, "head_width": 16, "targets": targets, "residual_rank": rank}
    detector = EffortFinetuneDetector(config, tower=tower).to(dtype)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    return detector, dense, images


def nudge(detector):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in residual_layers(detector).values():
            for p in (layer.S_residual, layer.U_residual, layer.V_residual):
                p += 0.1 * torch.randn(p.shape, generator=generator).to(p.dtype)


def assert_close(got, expected, dtype):
    assert got.dtype == expected.dtype == dtype
    torch.testing.assert_close(got, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@every_case
def test_a_fresh_detector_scores_as_its_base(targets, rank, dtype):
    detector, dense, images = make(targets, rank, dtype)
    assert_close(detector({"image": images})["feat"], dense(images).pooler_output, dtype)


@every_case
def test_merged_scores_as_factored(targets, rank, dtype):
    detector, _, images = make(targets, rank, dtype)
    nudge(detector)
    detector.eval()
    factored = detector({"image": images})["cls"]
    detector.merge()
    assert detector.status.merged == len(detector.status.layers) > 0
    assert_close(detector({"image": images})["cls"], factored, dtype)


@every_case
def test_exactly_residuals_and_head_have_gradients(targets, rank, dtype):
    detector, _, images = make(targets, rank, dtype)
    batch = {"image": images, "label": torch.tensor([0, 1, 1])}
    detector.get_losses(batch, detector(batch))["overall"].backward()
    with_gradient = {name for name, p in detector.named_parameters() if p.grad is not None}
    expected = {name for name, _ in detector.named_parameters() if "_residual" in name or "head." in name}
    assert with_gradient == expected
    assert len(expected) == 3 * len(detector.status.layers) + 2
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)


@every_case
@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_and_loaded_scores_are_equal(targets, rank, dtype, layout, tmp_path):
    detector, _, images = make(targets, rank, dtype)
    nudge(detector)
    path = tmp_path / f"weights.{'safetensors' if layout == 'safetensors' else 'pth'}"
    LAYOUTS[layout](detector.state_dict(), path)
    loaded = EffortFinetuneDetector(
        {
            "resolution": 32,
            "head_width": 16,
            "targets": targets,
            "residual_rank": rank,
            "pretrained_weights": str(path),
        }
    )
    # A model read from a file computes in float32, whatever the file's dtype.
    state, again = detector.state_dict(), loaded.state_dict()
    assert list(again) == list(state)
    assert all(torch.equal(again[key], tensor.float()) for key, tensor in state.items())
    if dtype == torch.float32:
        batch = {"image": images}
        assert torch.equal(loaded(batch)["cls"], detector(batch)["cls"])
