"""A host's modules, one by one, whatever its packages and this environment are like."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toyhost import EMBEDDED

from effort_finetune.config import resolve
from effort_finetune.core.errors import UserError
from effort_finetune.guest.registry import register_plugin
from effort_finetune.host import open_host
from effort_finetune.host.settings_files import settings_files


def test_single_modules_load_without_their_packages_init(host_root):
    host = open_host(host_root)
    assert host.dataset_class.__name__ == "DeepfakeAbstractBaseDataset"
    assert host.dataset_class.size == 256
    assert host.registry("DETECTOR") is host.registry("DETECTOR")


def test_the_process_is_left_as_it_was(host_root):
    path, names = list(sys.path), set(sys.modules)
    host = open_host(host_root)
    assert host.get_test_metrics(np.array([0.1, 0.9]), np.array([0, 1]), ["a", "b"])["acc"] == 1
    assert not torch.is_anomaly_enabled()
    assert sys.path == path
    assert {"metrics", "dataset"} & (set(sys.modules) - names) == set()


def test_two_hosts_in_one_process_stay_apart(host_root, tmp_path):
    other = shutil.copytree(host_root, tmp_path / "other")
    (other / "training/dataset/albu.py").write_text("SIZE = 317\n")
    first, second = open_host(host_root), open_host(other)
    assert (first.dataset_class.size, second.dataset_class.size) == (256, 317)
    assert open_host(host_root).dataset_class.size == 256
    assert first.registry("DETECTOR") is not second.registry("DETECTOR")


def test_a_module_the_host_has_loaded_under_another_name_is_not_loaded_twice(host_root, monkeypatch):
    import importlib.util

    file = host_root / "training/metrics/registry.py"
    spec = importlib.util.spec_from_file_location("training.metrics.registry", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "training.metrics.registry", module)
    assert open_host(host_root).registry("DETECTOR") is module.DETECTOR


def test_a_copy_of_the_embedded_host_works_and_without_its_settings_file_says_where_one_is(tmp_path):
    left = shutil.ignore_patterns("__pycache__", "logs", "pretrained")
    shutil.copytree(EMBEDDED / "training", tmp_path / "training", symlinks=True, ignore=left)
    host = open_host(tmp_path)
    [file] = settings_files(host, None, (), own_config=False)
    assert resolve(flags={}, yaml_path=file, host_defaults={}).nEpochs == 10
    file.unlink()
    with pytest.raises(UserError) as refused:
        settings_files(host, None, (), own_config=False)
    assert Path(str(refused.value.next_step).removeprefix("--detector_config ")).is_file()


def test_a_package_needed_at_import_is_named_at_once(host_root):
    module = host_root / "training/dataset/albu.py"
    module.write_text("from cv2_of_tomorrow import resize\nSIZE = 1\n")
    with pytest.raises(UserError, match="pip install cv2_of_tomorrow"):
        _ = open_host(host_root).dataset_class


def test_a_host_module_that_raises_is_one_line(host_root):
    (host_root / "training/dataset/albu.py").write_text("raise RuntimeError('no GPU')\n")
    with pytest.raises(UserError, match="RuntimeError: no GPU"):
        _ = open_host(host_root).dataset_class


def test_metrics_do_not_write_into_the_callers_labels(host_root):
    labels = np.array([0, 2])
    open_host(host_root).get_test_metrics(np.array([0.1, 0.9]), labels, ["a", "b"])
    assert labels.tolist() == [0, 2]


def test_the_plugin_registers_once_and_refuses_a_taken_name(host_root):
    host = open_host(host_root)
    register_plugin(host)
    register_plugin(host)
    assert set(host.registry("TRAINER").data) == {"effort_finetune"}
    host.registry("DETECTOR").data["effort_finetune"] = int
    with pytest.raises(UserError, match="is taken"):
        register_plugin(host)


def test_settings_files_that_are_not_settings_are_refused(host_root):
    file = host_root / "training/config/test_config.yaml"
    file.write_text("- a list\n")
    with pytest.raises(UserError, match="expected a mapping"):
        open_host(host_root).default_settings("test")
    file.write_text("a: [1\n")
    with pytest.raises(UserError, match="not a YAML file"):
        open_host(host_root).default_settings("test")


def test_paths_are_relative_to_the_root(host_root):
    host = open_host(host_root)
    assert host.resolve("./datasets/lmdb") == host_root / "datasets/lmdb"
    assert str(host.resolve("/somewhere")) == "/somewhere"


def test_a_host_travels_to_another_process(host_root):
    assert pickle.loads(pickle.dumps(open_host(host_root))).root == host_root


def test_commit_and_dirty(host_root):
    assert (open_host(host_root).commit, open_host(host_root).dirty) == (None, None)
    _commit_all(host_root)
    assert len(open_host(host_root).commit or "") == 40
    assert open_host(host_root).dirty is False
    from effort_finetune.install.installation import plan_install
    from effort_finetune.install.writing import execute

    execute(plan_install(open_host(host_root)))
    assert open_host(host_root).dirty is False, "what install inserted is no edit of the host"
    with (host_root / "training/train.py").open("a") as stream:
        stream.write("# mine\n")
    assert open_host(host_root).dirty is True


def test_a_host_inside_a_repository_that_does_not_hold_it_has_no_commit(host_root, tmp_path):
    (tmp_path / ".gitignore").write_text("host/\n")
    _commit_all(tmp_path)
    host = open_host(host_root)
    assert (host.commit, host.dirty) == (None, None)


def test_a_host_that_is_a_folder_of_a_repository_has_its_commit(host_root, tmp_path):
    _commit_all(tmp_path)
    assert open_host(host_root).commit is not None


def test_a_hook_of_another_repository_does_not_hide_the_hosts(host_root, tmp_path, monkeypatch):
    _commit_all(host_root)
    commit = open_host(host_root).commit
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert open_host(host_root).commit == commit


def _commit_all(folder):
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "host"]):
        subprocess.run([*git, *arguments], check=True)
