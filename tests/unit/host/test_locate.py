"""Which host a command works in."""

from __future__ import annotations

import pytest

from effort_finetune.core import resources
from effort_finetune.core.errors import UserError
from effort_finetune.guest.runs import TrainRun
from effort_finetune.host import locate, open_host
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
    assert locate(script=script, cwd=cwd, environ=environ) == hosts["environment"]
    assert locate(script=script, cwd=cwd, environ={}) == hosts["script"]
    assert locate(cwd=cwd, environ={}) == hosts["cwd"]
    assert locate(cwd=hosts["cwd"].parent, environ={}) == resources.embedded_host()


@pytest.mark.parametrize("name", ["training", "training_of_v2"])
def test_a_linked_training_folder_belongs_to_where_the_link_is(host_root, tmp_path, name):
    (tmp_path / "disk").mkdir()
    (host_root / "training").rename(tmp_path / "disk" / name)
    (host_root / "training").symlink_to(tmp_path / "disk" / name)
    script = host_root / "training" / "finetune.py"
    assert locate(script=script, cwd=tmp_path, environ={}) == host_root
    assert TrainRun(str(script), argv=[])._host.root == host_root


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


def test_a_folder_above_a_host_is_told_where_it_is(host_root):
    with pytest.raises(UserError) as caught:
        locate(host_root.parent)
    assert str(host_root) in str(caught.value)


def test_without_an_embedded_host_the_flag_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "embedded_host", lambda: None)
    with pytest.raises(UserError, match="no DeepfakeBench found"):
        locate(cwd=tmp_path, environ={})


def test_the_three_kinds(host_root):
    assert open_host(host_root).kind == "deepfakebench"
    (host_root / "training/utils").mkdir()
    (host_root / "training/utils/registry.py").write_text("DETECTOR = None\n")
    assert open_host(host_root).kind == "effort-fork"
    (host_root / kinds.EMBEDDED_MARK).write_text("")
    assert open_host(host_root).kind == "embedded"


@pytest.mark.parametrize("name", kinds.REQUIRED)
def test_a_host_that_lacks_a_file_is_refused_by_name(host_root, name):
    (host_root / name).unlink()
    with pytest.raises(UserError, match=name):
        open_host(host_root)


def test_a_host_without_any_registry_is_refused(host_root):
    (host_root / "training/metrics/registry.py").unlink()
    with pytest.raises(UserError, match="neither"):
        open_host(host_root)
