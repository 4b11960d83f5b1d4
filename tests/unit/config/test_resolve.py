"""Precedence, types, bounds, aliases and error reports of the settings resolver."""

from __future__ import annotations

from pathlib import Path

import pytest

from effort_finetune.config import Settings, resolve, settings_from_config
from effort_finetune.config.flag_words import from_flag
from effort_finetune.config.key_table import known_keys
from effort_finetune.core.errors import UserError, UserErrors


def _resolve(flags=None, host=None, yaml_path=None, **extra):
    return resolve(flags=flags or {}, yaml_path=yaml_path, host_defaults=host or {}, **extra)


def _yaml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "detector.yaml"
    path.write_text(text)
    return path


def test_nothing_given_is_the_defaults():
    assert _resolve() == Settings()


def test_flag_beats_yaml_beats_host(tmp_path):
    path = _yaml(tmp_path, "nEpochs: 2\ntrain_batchSize: 2\n")
    settings = _resolve({"nEpochs": 3}, {"nEpochs": 1, "train_batchSize": 1, "workers": 1}, path)
    assert (settings.nEpochs, settings.train_batchSize, settings.workers) == (3, 2, 1)


def test_the_optimiser_of_upstreams_form_and_the_guides_are_one_setting(tmp_path):
    path = _yaml(tmp_path, "optimizer: {type: adam, adam: {lr: 0.5, beta1: 0.8}, sgd: {lr: 9}}\n")
    assert _resolve(yaml_path=path).optimizer.lr == 0.5
    assert _resolve({"optimizer.lr": 0.25}, yaml_path=path).optimizer.lr == 0.25
    assert _resolve({"optimizer.type": "sgd"}, yaml_path=path).optimizer.lr == 9
    assert _resolve({"weight_decay": 0.125}, yaml_path=path).optimizer.weight_decay == 0.125


def test_two_names_of_one_setting_must_agree(tmp_path):
    path = _yaml(tmp_path, "optimizer: {type: adam, lr: 0.1, adam: {lr: 0.2}}\n")
    with pytest.raises(UserError, match=r"optimizer\.lr and optimizer\.adam\.lr"):
        _resolve(yaml_path=path)


def test_yaml_exponents_without_a_point_are_numbers(tmp_path):
    assert _resolve(yaml_path=_yaml(tmp_path, "lr_eta_min: 1e-6\n")).lr_eta_min == 1e-6


def test_unknown_key_gets_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'nEpochs'"):
        _resolve({"nEpoch": 3})


def test_unknown_nested_key_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"did you mean .data_aug\.flip_prob."):
        _resolve(yaml_path=_yaml(tmp_path, "data_aug: {flip_probs: 0.1}\n"))


def test_a_wrong_entry_of_a_mapping_is_named_without_the_others(tmp_path):
    path = _yaml(tmp_path, "label_dict: {FF-real: 0, mine_fake: one}\n")
    with pytest.raises(UserError) as caught:
        _resolve(host={"label_dict": {"FF-DF": 1}}, yaml_path=path)
    assert f"label_dict in {path}; got 'mine_fake': 'one'; expected whole number >= 0" in str(caught.value)
    assert "FF" not in str(caught.value)


def test_all_errors_are_reported_at_once():
    with pytest.raises(UserErrors) as caught:
        _resolve({"train_batchSize": 0, "data_aug.flip_prob": "often", "select_on": "train"})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nEpochs", 2.5),
        ("nEpochs", True),
        ("freeze_backbone", "yes"),
        ("save_ckpt", "yes"),
        ("mean", [0.5, 0.5]),
        ("layer_range", [3, 1]),
        ("optimizer.lr", "nan"),
        ("optimizer.lr", 0),
        ("optimizer.beta2", 1),
        ("threshold", 1.5),
        ("loss.class_weights", "balance"),
        ("loss.class_weights", [1, 0]),
        ("data_aug.blur_limit", [4, 4]),
        ("data_aug.blur_limit", [7, 3]),
        ("mean", [123.675, 116.28, 103.53]),
        ("std", [0, 0, 0]),
        ("workers", 100000),
        ("manualSeed", 2**32),
        ("device", "gpu"),
    ],
)
def test_bad_values_are_refused(key, value):
    with pytest.raises(UserError, match=key):
        _resolve({key: value})


def test_contradictions_are_refused():
    with pytest.raises(UserError, match="quality_lower"):
        _resolve({"data_aug.quality_lower": 90, "data_aug.quality_upper": 50})


def test_host_only_keys_pass_through_untouched():
    settings = _resolve(host={"SWA": False, "pretrained": "no need"})
    assert settings.host_only == {"SWA": False, "pretrained": "no need"}
    assert settings.to_dict()["pretrained"] == "no need"


def test_label_dict_of_the_yaml_extends_the_hosts(tmp_path):
    path = _yaml(tmp_path, "label_dict: {mine_real: 0, FF-DF: 2}\n")
    settings = _resolve(host={"label_dict": {"FF-DF": 1, "FF-real": 0}}, yaml_path=path)
    assert settings.label_dict == {"FF-DF": 2, "FF-real": 0, "mine_real": 0}


def test_a_hosts_dictionary_round_trips():
    settings = _resolve({"train_dataset": ["A"], "optimizer.type": "sgd", "optimizer.lr": 0.5}, {"SWA": True})
    assert settings_from_config(settings.to_dict()) == settings


def test_a_hosts_dictionary_may_hold_unknown_keys():
    assert settings_from_config({"unheard_of": 1}).host_only == {"unheard_of": 1}


def test_relative_paths_in_files_mean_the_host_and_in_flags_the_cwd(tmp_path, monkeypatch):
    host, cwd = tmp_path / "host", tmp_path / "cwd"
    (host / "clip").mkdir(parents=True)
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    settings = _resolve(
        {"pretrained_weights": "w.pth"}, {"lmdb_dir": "./datasets/lmdb", "clip_path": "clip"}, host_root=host
    )
    assert settings.pretrained_weights == str(cwd / "w.pth")
    assert settings.lmdb_dir == str(host / "datasets" / "lmdb")
    assert settings.clip_path == str(host / "clip")


def test_a_hub_id_is_not_a_path(tmp_path):
    assert _resolve(host={"clip_path": "openai/clip"}, host_root=tmp_path).clip_path == "openai/clip"


def test_digest_ignores_paths_and_sees_numbers():
    base = _resolve().digest()
    assert _resolve({"output_dir": "elsewhere"}).digest() == base
    assert _resolve({"optimizer.lr": 0.5}).digest() != base


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not a YAML file"), ("- a\n- b", "not a settings file"), ("1: 2", "not a settings file")],
)
def test_bad_files_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        _resolve(yaml_path=_yaml(tmp_path, text))


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="not found"):
        _resolve(yaml_path=tmp_path / "none.yaml")
    binary = tmp_path / "weights.pth"
    binary.write_bytes(b"\x80\x02\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        _resolve(yaml_path=binary)


def test_names_on_the_command_line_stay_names():
    keys = known_keys()
    assert from_flag("007", keys["train_dataset"]) == "007"
    assert from_flag("null", keys["train_dataset"]) == "null"
    assert from_flag("null", keys["val_dataset"]) is None
    assert from_flag("[-5, 5]", keys["data_aug.rotate_limit"]) == [-5, 5]
    assert from_flag("1e-3", keys["optimizer.lr"]) == "1e-3"


def test_every_key_has_help():
    assert len(known_keys()) > 60
    assert all(key.help for key in known_keys().values())


def test_a_key_of_the_hosts_own_file_passes_through():
    assert _resolve(host={"wandb_project": "x"}).host_only == {"wandb_project": "x"}


@pytest.mark.parametrize(("name", "kept"), [("meso4", True), ("effort_finetune", False), ("effort", False)])
def test_a_hosts_file_does_not_say_whether_weights_are_kept(tmp_path: Path, name: str, kept: bool) -> None:
    """Upstream's files say ``save_ckpt: false`` and its train.py never looks: its weights are kept."""
    path = tmp_path / "detector.yaml"
    path.write_text(f"model_name: {name}\nsave_ckpt: false\n")
    assert resolve(flags={}, yaml_path=path, host_defaults={}).save_ckpt is kept
    assert not resolve(flags={"save_ckpt": False}, yaml_path=path, host_defaults={}).save_ckpt
