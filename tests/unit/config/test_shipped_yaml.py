"""The shipped settings files: complete, equal to the defaults, and what the guide's tables say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from effort_finetune.config import Settings, load_yaml, resolve
from effort_finetune.config.key_table import known_keys

ROOT = Path(__file__).parents[3]
MAIN = ROOT / "DeepfakeBench/training/config/detector/effort_finetune.yaml"
# Set by the host's own configuration files, so that the detector's YAML does not override the user's folders.
FROM_HOST = {"clip_path", "lmdb", "lmdb_dir", "rgb_dir", "dataset_json_folder", "label_dict", "log_dir"}


def _dotted(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_the_yaml_states_every_default_and_changes_none():
    settings = resolve(flags={}, yaml_path=MAIN, host_defaults={})
    written = set(_dotted(load_yaml(MAIN)))
    own = set(known_keys()) - FROM_HOST
    adam = {"optimizer.beta1", "optimizer.beta2", "optimizer.eps", "optimizer.amsgrad", "optimizer.momentum"}
    assert own - adam <= written
    expected = Settings().to_dict()
    actual = settings.to_dict()
    assert {key: actual[key] for key in expected} == expected


def test_the_guides_table_is_the_file():
    settings = resolve(flags={}, yaml_path=MAIN, host_defaults={})
    assert settings.train_batchSize == 8
    assert settings.optimizer.lr == 0.0001
    assert settings.optimizer.weight_decay == 0.0001
    assert settings.nEpochs == 10
    assert settings.rec_iter == 50
    assert settings.freeze_backbone is True
    assert settings.train_svd_residuals is True
    assert settings.data_aug.flip_prob == 0.3
    assert settings.data_aug.rotate_prob == 0.2
    assert settings.data_aug.rotate_limit == (-5, 5)
    assert settings.data_aug.blur_prob == 0.2
    assert settings.data_aug.brightness_limit == (-0.05, 0.05)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_hosts_own_trainer_finds_the_learning_rate_where_it_looks(optimizer):
    tree = yaml.safe_load(MAIN.read_text())
    assert tree["optimizer"][optimizer]["lr"] == tree["optimizer"]["lr"]
    assert tree["optimizer"][optimizer]["weight_decay"] == tree["optimizer"]["weight_decay"]


def test_the_guides_schedule_snippet_resolves(tmp_path):
    path = tmp_path / "cosine.yaml"
    path.write_text('lr_scheduler: "cosine"\nlr_T_max: 10\nlr_eta_min: 1e-6\n')
    settings = resolve(flags={}, yaml_path=path, host_defaults={})
    assert (settings.lr_scheduler, settings.lr_T_max, settings.lr_eta_min) == ("cosine", 10, 1e-6)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_preset_is_a_diff_that_resolves(path):
    changed = resolve(flags={}, yaml_path=path, host_defaults={})
    assert changed != Settings()
