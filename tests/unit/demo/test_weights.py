"""The shipped demo weights: they load as what they claim to be, and the script that made them still runs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from effort_finetune.config import resolve
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights.reader import read_checkpoint
from examples.demo import pretrain_demo_tower as recipe

FOLDER = Path(__file__).parents[3] / "DeepfakeBench" / "training" / "pretrained"
TRAINED = ("S_residual", "U_residual", "V_residual", "head.weight", "head.bias")


def detector(**flags):
    return EffortFinetuneDetector(resolve(flags=flags, yaml_path=None, host_defaults={}))


@pytest.fixture(scope="module")
def from_clip():
    return detector(clip_path=str(FOLDER / "demo_clip"))


@pytest.fixture(scope="module")
def released():
    return detector(pretrained_weights=str(FOLDER / "demo_effort_familyA.pth"))


def test_the_tower_is_clips_at_224_px(from_clip):
    checkpoint = read_checkpoint(FOLDER / "demo_clip")
    assert (checkpoint.resolution, checkpoint.patch_size, checkpoint.hidden_size, checkpoint.layers) == (
        224,
        28,
        128,
        4,
    )
    assert all(torch.isfinite(t).all() for t in from_clip.state_dict().values())


def test_the_checkpoint_is_an_effort_detector_of_rank_1(released):
    checkpoint = read_checkpoint(FOLDER / "demo_effort_familyA.pth")
    assert checkpoint.layout == "deepfakebench"
    assert (checkpoint.rank, checkpoint.head_outputs, checkpoint.resolution) == (1, 2, 224)
    with torch.no_grad():
        score = released({"image": torch.zeros(1, 3, 224, 224)}, inference=True)["prob"]
    assert 0 < float(score) < 1


def test_only_residuals_and_head_left_the_tower(from_clip, released):
    before, after = from_clip.state_dict(), released.state_dict()
    assert set(before) == set(after)
    for name, tensor in before.items():
        if name.endswith(TRAINED):
            continue
        # The decomposition runs on this machine, so its last bits may differ from the file's.
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    moved = [
        n for n in before if n.endswith("S_residual") and not torch.allclose(before[n], after[n], atol=1e-4)
    ]
    assert len(moved) == 16


def test_the_filters_are_distinct_and_see_all_frequencies():
    bank = recipe.filter_bank(28, 128, 0).flatten(1)
    bank = bank / bank.norm(dim=1, keepdim=True)
    overlap = (bank @ bank.T - torch.eye(128)).abs()
    assert overlap.max() < 0.75
    assert int(torch.linalg.matrix_rank(bank)) == 128


def test_pretraining_learns_and_its_folder_loads(tmp_path, monkeypatch):
    from examples.demo.studies import draw_studies

    monkeypatch.setattr(recipe, "HELD_OUT", 40)
    studies = draw_studies(1, 0, 15, resolution=224, patches=8)
    assert studies.images.shape == (60, 224, 224, 3)
    assert studies.local.shape == (60, 8, 8, 14)
    again = draw_studies(1, 5, 6, resolution=224, patches=8)
    assert np.array_equal(again.images, studies.images[20:24])
    tower, errors = recipe.pretrain(studies, steps=3, seed=0, batch=4)
    assert set(errors) == {"global", "local"}
    recipe.save_clip_folder(tower, tmp_path / "clip")
    image = torch.rand(1, 3, 224, 224)
    loaded = detector(clip_path=str(tmp_path / "clip"))
    with torch.no_grad():
        expected = tower(image).pooler_output
        torch.testing.assert_close(loaded.eval().features({"image": image}), expected, rtol=1e-4, atol=1e-4)
