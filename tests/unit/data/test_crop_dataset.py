"""Videos as they are: broken, killed half-way, of other options, of names no program likes."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from toyhost import EMBEDDED

from effort_finetune.cli.main import main
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.data import crop_dataset as room
from effort_finetune.data.crop_dataset import CropOptions, VideoReport, crop_dataset, summary
from effort_finetune.data.faces import Crop, dlib_finder
from effort_finetune.data.folder import list_clips, pack_crops

OPTIONS = CropOptions(faces="cropped", count=None, every=1, size=16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two folders of three images in each class."""
    for label in ("real", "fake"):
        for name in ("a", "b"):
            folder = tmp_path / "source" / label / name
            folder.mkdir(parents=True)
            for number in range(3):
                cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), 40 * number, np.uint8))
    return tmp_path / "source"


def test_frames_that_cannot_be_decoded_are_counted(source: Path, tmp_path: Path) -> None:
    (source / "real" / "a" / "1.png").write_bytes(b"not an image")
    for number in range(3):
        (source / "fake" / "b" / f"{number}.png").write_bytes(b"")
    reports = {report.name: report for report in crop_dataset(source, tmp_path / "rgb", OPTIONS)}
    assert reports["real/a"] == VideoReport("real/a", frames=3, crops=2, unreadable=1)
    assert "no frame of" in (reports["fake/b"].error or "")
    assert "; 1 frames that cannot be decoded; " in summary(list(reports.values()))


def test_a_second_run_still_knows_what_the_first_could_not_decode(source: Path, tmp_path: Path) -> None:
    (source / "real" / "a" / "1.png").write_bytes(b"not an image")
    first = crop_dataset(source, tmp_path / "rgb", OPTIONS)
    (source / "real" / "c").mkdir()
    cv2.imwrite(str(source / "real" / "c" / "0.png"), np.zeros((20, 30, 3), np.uint8))
    again = crop_dataset(source, tmp_path / "rgb", OPTIONS)
    assert [report for report in again if report.done_before] == [replace(r, done_before=True) for r in first]
    assert "; 1 frames that cannot be decoded; " in summary(again)
    written = json.loads((tmp_path / "rgb" / "crops.json").read_text())["videos"]
    assert written == [asdict(report) for report in again]


def test_a_run_that_is_stopped_leaves_the_counts_of_what_it_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "real" / "a" / "1.png").write_bytes(b"not an image")
    save = room._save

    def stop(crop: Crop, images: Path, points: Path, number: int) -> None:
        if (tmp_path / "rgb/real/frames/a").exists():
            raise KeyboardInterrupt
        save(crop, images, points, number)

    monkeypatch.setattr(room, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        crop_dataset(source, tmp_path / "rgb", OPTIONS)
    monkeypatch.setattr(room, "_save", save)
    reports = {report.name: report for report in crop_dataset(source, tmp_path / "rgb", OPTIONS)}
    assert reports["real/a"] == VideoReport("real/a", frames=3, crops=2, unreadable=1, done_before=True)


def test_other_options_do_not_mix_with_what_is_there(source: Path, tmp_path: Path) -> None:
    crop_dataset(source, tmp_path / "rgb", OPTIONS)
    moved = replace(OPTIONS, predictor=tmp_path / "moved.dat")
    assert all(report.done_before for report in crop_dataset(source, tmp_path / "rgb", moved))
    with pytest.raises(UserError, match="other options; got every 1, size 16; expected every 2, size 32"):
        crop_dataset(source, tmp_path / "rgb", replace(OPTIONS, every=2, size=32))


def test_a_killed_run_is_taken_up_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "rgb" / "Mine"
    program = """
import itertools, os, signal, sys
from pathlib import Path
from effort_finetune.data import crop_dataset as room

count, save = itertools.count(1), room._save

def save_and_die(*arguments):
    save(*arguments)
    if next(count) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

room._save = save_and_die
options = room.CropOptions(faces="cropped", count=None, every=1, size=16)
room.crop_dataset(Path(sys.argv[1]), Path(sys.argv[2]), options)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(source), str(target)], check=False)
    assert killed.returncode == -9
    assert len(list(target.glob(".crop.*/frames/*.png"))) == 2
    assert pack_crops(tmp_path / "rgb", tmp_path / "lmdb", "Mine")[1] == 3, "the whole video alone"
    reports = crop_dataset(source, target, OPTIONS)
    assert [report.crops for report in reports] == [3] * 4
    assert not list(target.glob(".crop.*"))
    assert pack_crops(tmp_path / "rgb", tmp_path / "lmdb", "Mine")[1] == 12


def test_links_are_followed_and_what_the_system_hides_is_left_out(source: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other disk"
    (source / "real").rename(elsewhere)
    (source / "real").mkdir()
    (source / "real" / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(source / "real")
    (elsewhere / "a" / "._1.png").write_bytes(b"macOS")
    (source / "fake" / "._clip.mp4").write_bytes(b"macOS")
    rgb = tmp_path / "rgb"
    reports = crop_dataset(source, rgb / "Mine", OPTIONS)
    names = ["real/linked__a", "real/linked__b", "fake/a", "fake/b"]
    assert [(report.name, report.crops, report.error) for report in reports] == [(n, 3, None) for n in names]
    (rgb / "Mine" / "real").rename(tmp_path / "moved")
    (rgb / "Mine" / "real").symlink_to(tmp_path / "moved")
    assert sum(len(clip.frames) for clip in list_clips(rgb, "Mine")) == 12
    assert pack_crops(rgb, tmp_path / "lmdb", "Mine")[1] == 12


def test_crops_made_elsewhere_are_listed_and_packed_whatever_their_suffix(tmp_path: Path) -> None:
    for label in ("real", "fake"):
        folder = tmp_path / "Mine" / label / "frames" / "0"
        folder.mkdir(parents=True)
        for number, suffix in enumerate((".png", ".PNG", ".jpg", ".JPEG")):
            data = cv2.imencode(suffix.lower(), np.zeros((8, 8, 3), np.uint8))[1].tobytes()
            (folder / f"{number}{suffix}").write_bytes(data)
        (folder / "._0.png").write_bytes(b"macOS")
    clips = list_clips(tmp_path, "Mine")
    assert [path.rsplit("\\", 1)[1] for path in clips[0].frames] == ["0.png", "1.PNG", "2.jpg", "3.JPEG"]
    assert pack_crops(tmp_path, tmp_path / "lmdb", "Mine")[1] == 8


def test_a_full_disk_ends_in_one_line_and_is_gone_on_from(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prepare", "crop", "Mine", "--videos", str(source), "--faces", "cropped", "--stride", "1"]
    command += ["--rgb_dir", str(tmp_path / "rgb"), "--host", str(EMBEDDED)]
    save = room._save

    def full(crop: Crop, images: Path, points: Path, number: int) -> None:
        if (tmp_path / "rgb/Mine/real/frames/b").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        save(crop, images, points, number)

    monkeypatch.setattr(room, "_save", full)
    assert main(command) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "error: prepare crop stopped: [Errno 28] No space left on device; what was finished"
    )
    monkeypatch.undo()
    assert main(command) == 0
    assert "12 crops of 4 videos" in capsys.readouterr().out


def killed(*_: object, **__: object) -> VideoReport:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive")


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the stub of a crop needs fork"
)
def test_a_killed_process_is_named_and_not_waited_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_crop_video", killed)
    with pytest.raises(RunFailure, match="process that cuts faces was killed"):
        crop_dataset(source, tmp_path / "rgb", OPTIONS, workers=2)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name themselves")
def test_a_name_that_is_not_utf8_is_refused_before_opencv_crashes(source: Path, tmp_path: Path) -> None:
    (source / "real" / "b").rename(os.fsdecode(os.fsencode(source / "real") + b"/caf\xe9"))
    with pytest.raises(UserError, match=r"not UTF-8; got '.*caf\\udce9'"):
        crop_dataset(source, tmp_path / "rgb", OPTIONS)


def test_a_model_of_other_points_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    dlib = pytest.importorskip("dlib", reason="needs the extra 'faces'")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    box = dlib.rectangle(0, 0, 63, 63)
    settings = dlib.shape_predictor_training_options()
    settings.cascade_depth = settings.num_trees_per_cascade_level = settings.tree_depth = 2
    for count in (68, 81):
        points = [dlib.point(n % 9 * 7, n // 9 * 7) for n in range(count)]
        face = dlib.full_object_detection(box, points)
        dlib.train_shape_predictor([image, image], [[face], [face]], settings).save(
            str(tmp_path / f"{count}.dat")
        )
    with pytest.raises(UserError, match="wrong points; got 68; expected 81"):
        dlib_finder(tmp_path / "68.dat")
    assert dlib_finder(tmp_path / "81.dat")(image) is None, "there is no face in noise"
