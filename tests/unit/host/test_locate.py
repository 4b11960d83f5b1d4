"""Which host a command works in."""

from __future__ import annotations

import subprocess

import pytest

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.host import enclosing_host, locate, open_host
from effort_finetune.host import recognise as kinds


@pytest.fixture
def hosts(host_root, tmp_path):
    """Four hosts, so that each rule can point at another one."""
    import shutil

    names = ("explicit", "environment", "script", "cwd")
    return {name: shutil.copytree(host_root, tmp_path / name) for name in names}


def test_the_order_of_the_rules(hosts):
    script = hosts["script"] / "training" / "finetune.py"
    cwd = hosts["cwd"] / "training" / "config"
    environ = {"DEEPFAKEBENCH_ROOT": str(hosts["environment"])}
    assert locate(hosts["explicit"], script=script, cwd=cwd, environ=environ) == hosts["explicit"]
    assert locate(script=script, cwd=cwd, environ=environ) == hosts["script"]
    assert locate(cwd=cwd, environ=environ) == hosts["environment"]
    assert locate(cwd=cwd, environ={}) == hosts["cwd"]


def test_the_only_host_a_folder_below_is_taken(host_root):
    assert locate(cwd=host_root.parent, environ={}) == host_root
    assert locate(host_root.parent) == host_root


def test_of_several_hosts_below_none_is_taken(hosts, tmp_path):
    with pytest.raises(UserError, match=r"5 DeepfakeBench checkouts below .*; got cwd, environment"):
        locate(cwd=tmp_path, environ={})


def test_the_embedded_host_is_the_last_resort_of_commands_that_need_data_and_is_said(tmp_path, capsys):
    assert locate(cwd=tmp_path, environ={}) == resources.embedded_host()
    assert "working in the embedded host" in capsys.readouterr().err
    with pytest.raises(UserError, match="no DeepfakeBench found"):
        locate(cwd=tmp_path, environ={}, embedded=False)


@pytest.mark.parametrize("name", ["training", "training_of_v2"])
def test_a_linked_training_folder_belongs_to_where_the_link_is(host_root, tmp_path, name):
    (tmp_path / "disk").mkdir()
    (host_root / "training").rename(tmp_path / "disk" / name)
    (host_root / "training").symlink_to(tmp_path / "disk" / name)
    script = host_root / "training" / "finetune.py"
    assert locate(script=script, cwd=tmp_path, environ={}) == host_root
    assert enclosing_host(script) == host_root


def test_a_linked_script_belongs_to_where_the_file_is(host_root, tmp_path):
    (tmp_path / "finetune.py").symlink_to(host_root / "training" / "train.py")
    assert locate(script=tmp_path / "finetune.py", cwd=tmp_path, environ={}) == host_root


def test_an_empty_variable_is_none(hosts):
    assert locate(cwd=hosts["cwd"], environ={"DEEPFAKEBENCH_ROOT": ""}) == hosts["cwd"]


def test_a_named_folder_has_to_be_a_host(tmp_path):
    with pytest.raises(UserError, match="--host"):
        locate(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"\$DEEPFAKEBENCH_ROOT"):
        locate(environ={"DEEPFAKEBENCH_ROOT": str(tmp_path)})


def test_without_an_embedded_host_the_flag_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "embedded_host", lambda: None)
    with pytest.raises(UserError, match="no DeepfakeBench found"):
        locate(cwd=tmp_path, environ={})


def test_the_folder_inside_a_host_is_told_from_a_host_without_folders(host_root):
    with pytest.raises(UserError, match=rf"next: give the folder above it: {host_root}$"):
        open_host(host_root / "training")


def test_a_host_is_told_from_its_files(host_root):
    assert not open_host(host_root).embedded
    (host_root / kinds.EMBEDDED_MARK).write_text("")
    assert open_host(host_root).embedded


@pytest.mark.parametrize(
    ("imported", "used"),
    [
        ("from metrics.registry import DETECTOR", "metrics.registry"),
        ("from utils.registry import DETECTOR", "utils.registry"),
        ("from DeepfakeBench.training.utils.registry import DETECTOR", "utils.registry"),
        ("import something", "utils.registry"),
        ("def broken(:", "utils.registry"),
    ],
)
def test_the_registry_is_the_one_that_the_detectors_import(host_root, imported, used):
    """The authors' fork has two, one of which nothing is in."""
    (host_root / "training/utils").mkdir()
    (host_root / "training/utils/registry.py").write_text("DETECTOR = None\n")
    (host_root / "training/detectors/__init__.py").write_text(imported + "\n")
    assert kinds.recognise(host_root).registry_module == used


@pytest.mark.parametrize("name", kinds.REQUIRED)
def test_a_tree_that_lacks_what_makes_a_host_is_refused_by_name(host_root, name):
    (host_root / name).unlink()
    with pytest.raises(UserError, match=name):
        open_host(host_root)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("training/utils/registry.py", "training/detectors/__init__.py"), "v1, of before April 2024"),
        (("detectors/__init__.py", "config/train_config.yaml", "train.py"), "into a folder training/"),
        (("detectors/__init__.py", "backbones/__init__.py", "train.py"), "DeepfakeBench-MM"),
        (("README.md",), "the folder that holds training/"),
    ],
)
def test_what_is_no_host_is_said_with_what_to_do(tmp_path, files, words):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(UserError) as caught:
        open_host(tmp_path)
    assert words in str(caught.value)


def test_a_host_without_any_registry_says_so_when_it_is_asked(host_root):
    (host_root / "training/metrics/registry.py").unlink()
    with pytest.raises(UserError, match="no registry module"):
        open_host(host_root).registry("DETECTOR")


@pytest.mark.parametrize(
    ("url", "title"),
    [
        ("https://github.com/SCLBD/DeepfakeBench.git", "SCLBD/DeepfakeBench"),
        ("https://user:secret@github.com/SCLBD/DeepfakeBench", "SCLBD/DeepfakeBench"),
        ("git@github.com:NBaLogn/Effort-AIGI-Detection.git", "NBaLogn/Effort-AIGI-Detection"),
        ("ssh://git@host.example/group/sub/name.git/", "sub/name"),
        ("../elsewhere/repo", "host"),
        ("/somewhere/repo", "host"),
        ("file:///somewhere/repo", "host"),
        ("", "host"),
    ],
)
def test_the_title_is_the_remotes_or_the_folders(host_root, url, title):
    git = ["git", "-C", str(host_root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "host"]):
        subprocess.run([*git, *arguments], check=True)
    if url:
        subprocess.run([*git, "remote", "add", "origin", url], check=True)
    assert open_host(host_root).name == title


def test_labels_of_the_tests_are_those_of_the_training_where_there_are_none(host_root):
    train = host_root / "training/config/train_config.yaml"
    train.write_text("label_dict: {A: 0}\nlmdb: true\n")
    test = host_root / "training/config/test_config.yaml"
    assert open_host(host_root).default_settings("test") == {
        "mode": "test",
        "lmdb": True,
        "label_dict": {"A": 0},
    }
    test.write_text("label_dict: {B: 1}\n")
    assert open_host(host_root).default_settings("test") == {"label_dict": {"B": 1}}
    test.unlink()
    assert open_host(host_root).default_settings("test")["label_dict"] == {"A": 0}
