"""Files of every layout score alike, and as a tower with dense weights from the paper's formula does."""

from __future__ import annotations

import make_layouts as golden
import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights.adapter import save_adapter
from effort_finetune.weights.reader import read_checkpoint


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, 3, golden.RESOLUTION, golden.RESOLUTION, generator=generator)


def _reference_features(images, effort):
    """transformers' own tower, with W = main + U diag(S) V where the file is decomposed."""
    tower = golden.clip_model().vision_model
    if effort:
        state = golden.effort_tower()
        dense = {}
        for key in golden.dense_tower():
            module = key.rpartition(".")[0]
            if f"{module}.weight_main" in state and key.endswith(".weight"):
                u, s, v = (state[f"{module}.{name}_residual"].double() for name in "USV")
                dense[key] = (state[f"{module}.weight_main"].double() + u @ torch.diag(s) @ v).float()
            else:
                dense[key] = state[key]
        taken = tower.load_state_dict(dense, strict=False)
        assert set(taken.missing_keys) <= {"embeddings.position_ids"}
    with torch.no_grad():
        return tower(images).pooler_output


def _detector(tmp_path, writers, name):
    path = tmp_path / name
    writers[name](path)
    settings = {"resolution": golden.RESOLUTION, "head_width": golden.HEAD_WIDTH}
    return EffortFinetuneDetector({"pretrained_weights": str(path), **settings}).eval()


@pytest.mark.parametrize("name", golden.EFFORT)
def test_effort_layouts(tmp_path, images, name):
    detector = _detector(tmp_path, golden.EFFORT, name)

    with torch.no_grad():
        scored = detector({"image": images})

    head = golden.head()
    expected = _reference_features(images, effort=True) @ head["weight"].T + head["bias"]
    torch.testing.assert_close(scored["cls"], expected, rtol=1e-5, atol=2e-5)
    assert detector.load_report.counts()["loaded"] == len(golden.detector())


def test_effort_layouts_agree_to_the_bit(tmp_path, images):
    with torch.no_grad():
        logits = [_detector(tmp_path, golden.EFFORT, n)({"image": images})["cls"] for n in golden.EFFORT]

    assert all(torch.equal(logits[0], other) for other in logits[1:])


@pytest.mark.parametrize("name", golden.ONE_LOGIT)
def test_one_logit_layouts_give_the_sigmoid(tmp_path, images, name):
    detector = _detector(tmp_path, golden.ONE_LOGIT, name)

    with torch.no_grad():
        scored = detector({"image": images})

    fc = golden.head(outputs=1)
    z = _reference_features(images, effort=True) @ fc["weight"].T + fc["bias"]
    torch.testing.assert_close(scored["prob"], torch.sigmoid(z[:, 0]), rtol=1e-4, atol=1e-5)
    assert detector.load_report.head_outputs == 2


@pytest.mark.parametrize("name", golden.DENSE)
def test_plain_clip_layouts_give_clips_features(tmp_path, images, name):
    detector = _detector(tmp_path, golden.DENSE, name)

    with torch.no_grad():
        features = detector({"image": images})["feat"]

    torch.testing.assert_close(features, _reference_features(images, effort=False), rtol=1e-5, atol=2e-5)
    assert detector.status.ranks == (1,)
    assert set(detector.load_report.derived) >= {"head.weight", "head.bias"}


def test_an_adapter_is_a_checkpoint_like_any_other(tmp_path, images):
    """Saved from a detector over a CLIP folder, it scores the same, wherever that folder has gone."""
    clip = tmp_path / "clip"
    golden.clip_model().save_pretrained(clip)
    settings = {"resolution": golden.RESOLUTION, "head_width": golden.HEAD_WIDTH}
    trained = EffortFinetuneDetector({"clip_path": str(clip), **settings}).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, trained.state_dict(), read_checkpoint(clip, head_width=golden.HEAD_WIDTH))
    moved = clip.rename(tmp_path / "moved")

    again = EffortFinetuneDetector(
        {"pretrained_weights": str(path), "clip_path": str(moved), **settings}
    ).eval()

    with torch.no_grad():
        torch.testing.assert_close(again({"image": images})["cls"], trained({"image": images})["cls"])
    assert again.load_report.layout == "adapter"


def test_an_adapter_is_not_fed_otherwise_normalised_images(tmp_path):
    base, path = tmp_path / "base.pth", tmp_path / "adapter.safetensors"
    torch.save(golden.detector(), base)
    settings = {"resolution": golden.RESOLUTION, "head_width": golden.HEAD_WIDTH}
    trained_with = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    save_adapter(path, golden.detector(), read_checkpoint(base), settings=trained_with)

    with pytest.raises(UserError, match=r"mean; got \[0\.48.* settings; .* states \[0\.5, 0"):
        EffortFinetuneDetector({"pretrained_weights": str(path), **settings})
    EffortFinetuneDetector({"pretrained_weights": str(path), **settings, **trained_with})

    save_adapter(path, golden.detector(), read_checkpoint(base))  # which does not know
    EffortFinetuneDetector({"pretrained_weights": str(path), **settings, **trained_with})


def test_a_base_that_is_not_the_adapters_needs_the_setting_and_is_noted(tmp_path):
    settings = {"resolution": golden.RESOLUTION, "head_width": golden.HEAD_WIDTH}
    base, other = tmp_path / "base", tmp_path / "other"
    golden.clip_model().save_pretrained(base)
    golden.clip_model(seed=1).save_pretrained(other)
    path = tmp_path / "adapter.safetensors"
    state = EffortFinetuneDetector({"clip_path": str(base), **settings}).state_dict()
    save_adapter(path, state, read_checkpoint(base, head_width=golden.HEAD_WIDTH), base_name="gone/clip")
    asked = {"pretrained_weights": str(path), "clip_path": str(other), **settings}

    with pytest.raises(UserError, match="differs from the adapter's base gone/clip"):
        EffortFinetuneDetector(asked)

    detector = EffortFinetuneDetector({**asked, "allow_base_mismatch": True})
    assert len(detector.load_report.to_dict()["notes"]) == 1
