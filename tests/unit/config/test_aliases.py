"""Other names of settings, and a file in the shape of an edited fork's own."""

from __future__ import annotations

import pytest

from effort_finetune.config import load_yaml, resolve
from effort_finetune.config.aliases import ALIASES
from effort_finetune.config.host_only_keys import HOST_ONLY_KEYS
from effort_finetune.config.key_table import known_keys
from effort_finetune.core.errors import UserError

# Keys and nesting as an edited fork of the Effort repository has them; the values are ours.
FORK = """
log_dir: /home/me/fork/logs
pretrained: nothing
model_name: effort
backbone_name: vit
backbone_config: {mode: original, num_classes: 2, inc: 3, dropout: false}
all_dataset: [UADFV]
train_dataset: [UADFV]
test_dataset: [UADFV]
frame_num: {train: 4, test: 4}
with_mask: false
optimizer:
  type: adam
  adam: {lr: 0.00002, beta1: 0.8, beta2: 0.99, eps: 0.00000001, weight_decay: 0.0002, amsgrad: true}
  sgd: {lr: 0.1, momentum: 0.5, weight_decay: 0.3}
lr_scheduler: cosine
early_stopping: {enabled: true, patience: 2, min_delta: 0.001, metric: auc}
loss_func: cross_entropy
losstype: null
metric_scoring: auc
fine_tune: true
pretrained_checkpoint: null
save_avg: true
label_dict: {UADFV_Fake: 1, UADFV_Real: 0}
"""


def _resolve(tmp_path, *texts, flags=None, host=None, root=None):
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(text)
    return resolve(flags=flags or {}, yaml_path=paths, host_defaults=host or {}, host_root=root)


def test_a_forks_own_file_is_understood_whole(tmp_path):
    settings = _resolve(tmp_path, FORK, host={"dataset_root_rgb": "/data/rgb", "lmdb": True})
    assert (settings.optimizer.lr, settings.optimizer.beta1, settings.optimizer.amsgrad) == (2e-5, 0.8, True)
    assert (settings.early_stopping.patience, settings.early_stopping.min_delta) == (2, 0.001)
    assert settings.metric_scoring == "auc"
    assert settings.pretrained_weights is None
    assert settings.rgb_dir == "/data/rgb"
    assert settings.host_only["fine_tune"] is True


def test_early_stopping_that_is_switched_off_never_stops(tmp_path):
    off = FORK.replace("enabled: true", "enabled: false")
    assert _resolve(tmp_path, off).early_stopping.patience is None
    assert _resolve(tmp_path, off, flags={"early_stopping.patience": 3}).early_stopping.patience == 3
    with pytest.raises(
        UserError, match=r"early_stopping\.enabled in .*; got 'often'; expected true or false"
    ):
        _resolve(tmp_path, FORK.replace("enabled: true", "enabled: often"))


def test_early_stopping_that_is_switched_on_has_the_forks_patience(tmp_path):
    on = FORK.replace("patience: 2, ", "")
    assert _resolve(tmp_path, on).early_stopping.patience == 3
    assert _resolve(tmp_path, FORK, on).early_stopping.patience == 2
    assert (
        _resolve(tmp_path, FORK.replace("enabled: true", "enabled: false"), on).early_stopping.patience == 3
    )
    assert _resolve(tmp_path, on, flags={"early_stopping.patience": None}).early_stopping.patience is None


def test_two_metrics_for_one_choice_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"early_stopping\.metric and metric_scoring"):
        _resolve(tmp_path, FORK.replace("metric: auc", "metric: eer"))


def test_a_host_that_writes_both_names_is_not_judged(tmp_path):
    host = {"rgb_dir": "/own", "dataset_root_rgb": "/other"}
    assert _resolve(tmp_path, host=host).rgb_dir == "/own"
    assert _resolve(tmp_path, host=dict(reversed(host.items()))).rgb_dir == "/own"


def test_of_several_files_the_later_one_wins(tmp_path):
    settings = _resolve(tmp_path, "nEpochs: 2\nworkers: 3\n", "nEpochs: 4\n", flags={"test_batchSize": 5})
    assert (settings.nEpochs, settings.workers, settings.test_batchSize) == (4, 3, 5)
    with pytest.raises(UserError, match=r"1\.yaml; got 0"):
        _resolve(tmp_path, "nEpochs: 2\n", "nEpochs: 0\n")


@pytest.mark.parametrize("name", [name for name, alias in ALIASES.items() if alias.convert is None])
def test_every_other_name_sets_its_setting(tmp_path, name):
    key = ALIASES[name].key
    value = "3" if known_keys()[key].default.__class__ in (int, float) else "/a/b"
    path = tmp_path / "other.yaml"
    path.write_text(f"{name}: {value}\n")
    assert load_yaml(path)
    tree = resolve(flags={}, yaml_path=path, host_defaults={}).to_dict()
    for part in key.split("."):
        tree = tree[part]
    assert str(tree[0] if isinstance(tree, list) else tree).removesuffix(".0") == value


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("lr: -1", "lr (optimizer.lr) in "),
        ("batch_size: 0", "batch_size (test_batchSize) in "),
        ("early_stopping: {metric: [1]}", "early_stopping.metric (metric_scoring) in "),
        ("optimizer: {type: adam, adam: {eps: x}}", "optimizer.adam.eps (optimizer.eps) in "),
        ("optimizer: {eps: x}", "optimizer.eps in "),
    ],
)
def test_an_error_names_what_was_written(tmp_path, written, told):
    with pytest.raises(UserError) as refused:
        _resolve(tmp_path, written)
    assert str(refused.value).startswith(told)


def test_no_other_name_hides_a_key():
    assert not set(ALIASES) & ({*known_keys()} | HOST_ONLY_KEYS)
    assert {alias.key for alias in ALIASES.values()} <= set(known_keys())
