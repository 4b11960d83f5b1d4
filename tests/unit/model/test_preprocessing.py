"""The weights' own normalisation is used; another, given by hand, is an error or says so in the results."""

from __future__ import annotations

import json

import make_layouts as golden
import pytest
import torch

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.model.assembly import assemble
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.preprocessing import obey
from effort_finetune.weights.statement import PREPROCESSOR_CONFIG, Statement
from effort_finetune.weights.vision_config import Said, stating

HALF = Statement((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SHAPE = {"resolution": golden.RESOLUTION, "head_width": golden.HEAD_WIDTH, "hidden_act": "quick_gelu"}


@pytest.fixture
def weights(tmp_path):
    torch.save(stating(golden.detector(), Said({}, HALF)), tmp_path / "half.pth")
    return str(tmp_path / "half.pth")


def test_what_the_weights_state_wins_over_the_default(weights):
    settings = obey(Settings(pretrained_weights=weights, **SHAPE))
    assert settings.mean == (0.5, 0.5, 0.5)
    assert settings.std == (0.25, 0.25, 0.25)
    model = EffortFinetuneDetector(settings)
    assert model.load_report.to_dict()["states"] == HALF.to_dict()
    assert model.load_report.notes == ()


def test_a_value_by_hand_that_contradicts_is_an_error(weights):
    settings = obey(Settings(pretrained_weights=weights, mean=(0.1, 0.2, 0.3), **SHAPE))
    assert settings.mean == (0.1, 0.2, 0.3)
    with pytest.raises(UserError, match=r"mean.*states \[0.5, 0.5, 0.5\].*allow_preprocessing_mismatch"):
        assemble(settings)


def test_unless_it_is_allowed_and_then_the_results_say_so(weights):
    settings = Settings(
        pretrained_weights=weights, mean=(0.1, 0.2, 0.3), allow_preprocessing_mismatch=True, **SHAPE
    )
    report = assemble(obey(settings)).load_report
    assert [note for note in report.to_dict()["notes"] if "states [0.5, 0.5, 0.5]" in note]


def test_a_model_that_is_saved_says_what_it_was_trained_with(weights, tmp_path):
    model = EffortFinetuneDetector(obey(Settings(pretrained_weights=weights, **SHAPE)))
    torch.save(model.state_dict(), tmp_path / "again.pth")
    again = obey(Settings(pretrained_weights=str(tmp_path / "again.pth"), **SHAPE))
    assert again.mean == (0.5, 0.5, 0.5)


def test_a_clip_folders_preprocessor_is_obeyed(tmp_path):
    golden.clip_model().save_pretrained(tmp_path / "clip")
    config = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "resample": 3}
    (tmp_path / "clip" / PREPROCESSOR_CONFIG).write_text(json.dumps(config))
    settings = obey(Settings(clip_path=str(tmp_path / "clip"), resolution=golden.RESOLUTION))
    assert (settings.mean, settings.std) == (HALF.mean, HALF.std)
    (tmp_path / "clip" / PREPROCESSOR_CONFIG).write_text(json.dumps({**config, "image_std": [0, 0, 0]}))
    with pytest.raises(UserError, match="std"):
        obey(settings)


def test_a_rank_that_no_layer_would_get_is_refused(weights):
    settings = obey(Settings(pretrained_weights=weights, residual_rank=16, **SHAPE))
    with pytest.raises(UserError, match="residual_rank; got 16; the residuals of .* have rank 1"):
        assemble(settings)


def test_a_rank_for_further_layers_is_used_and_the_record_says_for_which(weights):
    settings = Settings(
        pretrained_weights=weights, residual_rank=2, targets=("self_attn.*_proj", "mlp.fc1"), **SHAPE
    )
    report = assemble(obey(settings)).load_report
    assert "have rank 1: the checkpoint's is used; 2 for mlp.fc1" in " ".join(report.to_dict()["notes"])


def test_the_interpolation_that_the_weights_state_is_used_and_carried_on(tmp_path):
    golden.clip_model().save_pretrained(tmp_path / "clip")
    config = {"resample": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "clip" / PREPROCESSOR_CONFIG).write_text(json.dumps(config))
    settings = obey(Settings(clip_path=str(tmp_path / "clip"), resolution=golden.RESOLUTION))
    assert settings.interpolation == "bilinear"
    assert EffortFinetuneDetector(settings).statement.interpolation == "bilinear"
    with pytest.raises(UserError, match="interpolation.*got area in the settings.*states bilinear"):
        EffortFinetuneDetector(settings.changed(interpolation="area"))
    # Pillow's hamming is no way of OpenCV's: the default stays.
    (tmp_path / "clip" / PREPROCESSOR_CONFIG).write_text(json.dumps({**config, "resample": 5}))
    assert obey(Settings(clip_path=str(tmp_path / "clip"))).interpolation == "bicubic"
