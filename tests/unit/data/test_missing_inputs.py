"""Everything that a run lacks is said in one go, before anything is read."""

from __future__ import annotations

import zipfile

import pytest

from effort_finetune.core.errors import UserErrors
from effort_finetune.data.missing_inputs import TRAINING, refuse_missing
from effort_finetune.host import open_host

I3D = """
class Base: pass
@DETECTOR.register_module(module_name='i3d')
class I3D(Base):
    def __init__(self, config):
        self.clip = config['clip_size']
"""


def lines(host, settings, **asked):
    with pytest.raises(UserErrors) as caught:
        refuse_missing(host, settings, **asked)
    return [str(error) for error in caught.value.errors]


def test_weights_folders_and_names_are_told_together(embedded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json").mkdir()
    asked = embedded.settings(
        train_dataset=["Nope", "Nada"], val_dataset=["./val"], test_dataset=["Nix", "Nope"]
    )
    told = lines(embedded.host, asked, which=TRAINING, weights=["no.pth", None])
    assert [line.partition(";")[0] for line in told] == [
        "weights file no.pth",
        "dataset 'Nope' has no index",
        "dataset 'Nada' has no index",
        "dataset './val'",
        "dataset 'Nix' has no index",
    ]


def test_folders_without_pictures_or_classes_are_told_together(embedded, tmp_path):
    (tmp_path / "empty" / "real").mkdir(parents=True)
    (tmp_path / "odd" / "a").mkdir(parents=True)
    (tmp_path / "odd" / "a" / "1.png").write_bytes(b"x")
    folders = [str(tmp_path / name) for name in ("empty", "odd")]
    asked = embedded.settings(train_dataset=folders, test_dataset=folders)
    empty, odd = lines(embedded.host, asked, which=TRAINING)
    assert "no pictures (it is empty)" in empty
    assert "no folder whose name tells a class" in odd


def test_a_folder_of_indexes_that_is_not_there_is_one_line(embedded, tmp_path):
    asked = embedded.settings(
        train_dataset=["A"], test_dataset=["B"], dataset_json_folder=str(tmp_path / "no")
    )
    assert len(lines(embedded.host, asked, which=TRAINING)) == 1


def test_a_resumed_run_needs_its_own_folder_alone(embedded, tmp_path):
    gone = embedded.settings(resume=str(tmp_path / "run"), pretrained_weights="gone.pth")
    assert [line[:8] for line in lines(embedded.host, gone, which=(), weights=["gone.pth"])] == [
        "--resume",
        "weights ",
    ]
    (tmp_path / "run").mkdir()
    with zipfile.ZipFile(tmp_path / "run" / "ckpt_last.pth", "w") as archive:
        archive.writestr("data.pkl", b"")
    assert refuse_missing(embedded.host, gone, which=(), weights=["gone.pth"]) == []


def test_a_detector_of_clips_is_told_beside_the_rest(host_root, embedded):
    (host_root / "training/detectors/i3d_detector.py").write_text(I3D)
    asked = embedded.settings(test_dataset=["Nix"], model_name="i3d")
    told = lines(open_host(host_root), asked, which=("test_dataset",), weights=["no.pth"])
    assert "it needs clips (config['clip_size']" in told[0]
    assert [line.partition(" ")[0] for line in told[1:]] == ["weights", "folder"]


def test_an_empty_name_is_not_the_working_directory(embedded):
    asked = embedded.settings(train_dataset=[""], test_dataset=[" "])
    told = lines(embedded.host, asked, which=TRAINING)
    assert [line.partition(";")[0] for line in told] == ["dataset ''", "dataset ' '"]
