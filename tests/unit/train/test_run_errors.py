"""What a user asked for in vain is said before anything is written."""

from __future__ import annotations

import re

import pytest

from effort_finetune.core.errors import UserError, UserErrors

from .running import run


def test_half_a_launcher_is_refused(bench, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK"):
        run(bench)


@pytest.mark.parametrize(
    "flags",
    [
        {"pretrained_weights": "/nowhere/effort.pth"},
        {"unfreeze": ["no_such_layer"]},
        {"train_svd_residuals": False, "train_classification_head": False},
        {"lr_scheduler": "cosine", "lr_eta_min": 1.0},
    ],
)
def test_a_run_that_cannot_start_writes_nothing(bench, flags):
    with pytest.raises(UserError):
        run(bench, **flags)
    assert not (bench.root / "out").exists()
    assert not (bench.root / "published").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"train_dataset": []}, "--train_dataset"),
        ({"train_dataset": ["Tyo"]}, "Toy"),
        ({"metric_scoring": "auroc"}, "metric_scoring"),
        ({"device": "cuda:99"}, "device"),
        ({"precision": "fp16"}, "precision"),
        ({"pretrained_weights": "nowhere.pth"}, "nowhere.pth"),
        ({"lr_scheduler": "cosine", "lr_eta_min": 1.0}, "lr_eta_min"),
        ({"train_svd_residuals": False, "train_classification_head": False}, "trainable"),
        ({"trainer": "foo"}, "trainer; got 'foo'"),
        ({"model_name": "mezo4"}, "did you mean 'meso4'"),
        ({"model_name": "meso4"}, "head_width; got a value for 'meso4', which has no such thing"),
        ({"model_name": "meso4", "head_width": None, "residual_rank": 2}, "residual_rank; got a value"),
    ],
)
def test_user_errors_come_before_any_step(bench, flags, message):
    with pytest.raises(UserError, match=re.escape(message)):
        run(bench, **flags)


def test_every_data_error_is_reported_at_once(bench):
    with pytest.raises(UserErrors) as caught:
        run(bench, train_dataset=["Tyo"], test_dataset=["Nowhere"])
    assert len(caught.value.errors) == 2


def test_data_that_all_splits_lack_is_one_error_and_val_is_looked_at_too(bench):
    with pytest.raises(UserErrors) as caught:
        run(bench, train_dataset=["Absent"], test_dataset=["Absent"], val_dataset=["Other"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "'Absent'" in lines[0]
    assert "'Other'" in lines[1]


def test_an_output_folder_that_cannot_be_written(bench):
    blocked = bench.root / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="output folder"):
        run(bench, output_dir=str(blocked / "out"))
    with pytest.raises(UserError, match="save_to"):
        run(bench, save_to=str(blocked / "x.pth"))


def test_a_save_to_that_cannot_be_written_names_its_own_flag(bench):
    (bench.root / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"folder of save_to; .*--save_to"):
        run(bench, save_to=str(bench.root / "file" / "best.pth"))
