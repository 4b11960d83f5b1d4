"""Runs on folders: what the weights state of their data, and what a test may not hold."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from effort_finetune.core.errors import UserError
from effort_finetune.evaluate import results as results_file
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.table import results_table
from effort_finetune.model.preprocessing import obey
from effort_finetune.weights.adapter import save_adapter
from effort_finetune.weights.reader import read_checkpoint, read_statement
from effort_finetune.weights.trained_on import told_by

from .conftest import Bench
from .running import document, quick


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def folder(root: Path, count: int, *, seed: int, groups: tuple[str, ...] = ("a", "b")) -> Path:
    """``count`` pictures of each class and group, of 40 x 30 pixels; fakes are brighter."""
    rng = np.random.default_rng(seed)
    for label in ("0_real", "1_fake"):
        for group in groups:
            for number in range(count):
                path = root / label / group / f"{label}{group}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(0, 128, (30, 40, 3)) + 120 * (label == "1_fake")
                assert cv2.imwrite(str(path), noise.astype(np.uint8))
    return root


def test_the_weights_state_the_crop_recipe_and_another_one_is_a_warning(bench: Bench, tmp_path: Path) -> None:
    train, test = folder(tmp_path / "train_set", 8, seed=1), folder(tmp_path / "test_set", 3, seed=2)
    outcome = quick(bench, train_dataset=[str(train)], test_dataset=[str(test)], faces="whole", fit="pad")
    recipe = {"finder": "whole", "size": 256, "margin": None, "model_sha256": None, "fit": "pad"}
    assert read_statement(outcome.best_path).crop == recipe
    block = document(outcome)["datasets"]["test_set"]
    part = block["protocol"]["datasets"]["test_set"]
    assert (part["crop_recipe"], part["fit"]) == (recipe, "pad")
    assert not [w for w in block["warnings"] if "another recipe" in w]
    log = (outcome.run_dir / "finetuning.log").read_text()
    assert "train_set: train share" in log
    assert "persons or pictures of their own" in log
    # Measured as crops, later and alone, the fit is the weights' own and the difference is said.
    out = tmp_path / "again"
    again = evaluate(
        bench.settings(test_dataset=[str(test)]), bench.host, weights=outcome.best_path, output_dir=out
    )
    result = results_file.read(again)
    assert result["settings"]["fit"] == "pad"
    assert yaml.safe_load((out / "settings.yaml").read_text())["fit"] == "pad"
    assert any("another recipe (cropped" in w for w in result["datasets"]["test_set"]["warnings"])
    # Each generator has its row, and all samples as one.
    assert set(result["datasets"]["test_set"]["groups"]) == {"real/a", "real/b", "fake/a", "fake/b"}
    assert result["average"]["over_samples"]["frame"]["auc"] is not None


def test_a_folder_that_was_trained_on_gives_its_held_out_share_also_through_the_adapter(
    bench: Bench, tmp_path: Path
) -> None:
    both = folder(tmp_path / "both", 10, seed=3)
    outcome = quick(bench, train_dataset=[str(both)], test_dataset=[str(both)])
    part = document(outcome)["datasets"]["both"]["protocol"]["datasets"]["both"]
    assert (part["folder"]["taken"], part["videos"]) == ("held-out share", 4)
    adapter = tmp_path / "adapter.safetensors"
    trained = torch.load(outcome.best_path, weights_only=True)
    save_adapter(adapter, trained, read_checkpoint(bench.settings().clip_path))
    for weights in (outcome.best_path, adapter):
        told = told_by(weights)
        assert [entry["name"] for entry in told.trained_on] == ["both"]
        assert told.fit == "crop"
        settings = bench.settings(test_dataset=[str(both)])
        path = evaluate(settings, bench.host, weights=weights, output_dir=tmp_path / "again")
        block = results_file.read(path)["datasets"]["both"]["protocol"]["datasets"]["both"]
        assert (block["folder"]["taken"], block["videos"]) == ("held-out share", 4)
        told_people = results_table(results_file.read(path))
        assert "both: trained on: only the held-out share is scored, 4 of 40 samples" in told_people


def test_a_picture_that_another_folder_trains_on_is_an_error_and_with_split_all_a_warning(
    bench: Bench, tmp_path: Path
) -> None:
    train, test = folder(tmp_path / "one", 8, seed=4), folder(tmp_path / "two", 3, seed=5)
    for number in range(8):
        source = train / "1_fake" / "a" / f"1_fakea{number}.png"
        (test / "1_fake" / "a" / f"copy{number}.png").write_bytes(source.read_bytes())
    asked = {"train_dataset": [str(train)], "test_dataset": [str(test)]}
    with pytest.raises(UserError, match=r"of 20 pictures that are trained on, such as two: .* = one: "):
        quick(bench, **asked)
    block = document(quick(bench, **asked, split="all"))["datasets"]["two"]
    assert any("those of another folder trained on" in warning for warning in block["warnings"])


def test_the_layout_of_universal_fake_detect_takes_pictures_in_their_own_size(
    bench: Bench, tmp_path: Path
) -> None:
    weights = tmp_path / "ufd.pth"
    torch.save(
        {"model": {"model.vision_model.post_layernorm.weight": torch.ones(2), "fc.weight": torch.ones(1, 2)}},
        weights,
    )
    assert told_by(weights).fit == "native"
    settings = obey(bench.settings(pretrained_weights=str(weights)))
    assert settings.fit == "native"
    assert obey(bench.settings(pretrained_weights=str(weights), fit="pad")).fit == "pad"
