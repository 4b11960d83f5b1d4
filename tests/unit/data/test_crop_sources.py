"""Which videos and pictures are taken, under which class and name, and what is not taken."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.crop_sources import CropSource, find_sources

TABLE = ClassWords()


def still(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.resize(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8), (48, 48))
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def film(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"opened later")
    return path


def taken(folder: Path, words: ClassWords = TABLE, **more: str) -> dict[str, str]:
    return {source.title: source.kind for source in find_sources(folder, words, **more).sources}


def test_mixed_trees_of_videos_frames_and_loose_pictures(tmp_path: Path) -> None:
    film(tmp_path / "0_real/youtube/007.mp4")
    film(tmp_path / "1_fake/Deepfakes/007.FLV")
    still(tmp_path / "0_real/portrait.png", 1)
    for number in range(3):
        still(tmp_path / f"1_fake/frames/clip/{number}.png", 2)
        still(tmp_path / f"1_fake/sdxl/{number}.png", number)
    assert taken(tmp_path) == {
        "real/portrait": "picture",
        "real/youtube__007": "video",
        "fake/clip": "frames",
        "fake/sdxl__0": "picture",
        "fake/sdxl__1": "picture",
        "fake/sdxl__2": "picture",
        "fake/007": "video",
    }


def test_one_folder_of_many_pictures_is_not_one_video(tmp_path: Path) -> None:
    for number in range(30):
        still(tmp_path / f"real/{number:05d}.png", number)
    assert len(taken(tmp_path)) == 30
    assert set(taken(tmp_path).values()) == {"picture"}


@pytest.mark.parametrize(
    "name",
    ["a.mp4", "a.avi", "a.mov", "a.mkv", "a.webm", "a.flv", "a.3gp", "a.ts", "a.MTS", "a.gif", "a.m2ts"],
)
def test_videos_of_every_container_are_taken(name: str, tmp_path: Path) -> None:
    film(tmp_path / "real" / name)
    assert taken(tmp_path) == {"real/a": "video"}


@pytest.mark.parametrize(
    "name", ["a.tif", "a.TIFF", "a.avif", "a.heic", "a.jp2", "a.bmp", "a.webp", "a.jfif"]
)
def test_pictures_of_every_format_are_taken(name: str, tmp_path: Path) -> None:
    still(tmp_path / "fake" / name)
    assert taken(tmp_path) == {"fake/a": "picture"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_what_is_not_taken_is_counted_by_reason(tmp_path: Path) -> None:
    film(tmp_path / "real/a.mp4")
    (tmp_path / "real/gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "real/notes.txt").write_text("x")
    (tmp_path / "real/._a.mp4").write_bytes(b"macOS")
    (tmp_path / "real/empty.avi").touch()
    still(tmp_path / "elsewhere/b.png")
    skipped = find_sources(tmp_path, ClassWords()).skipped
    assert skipped == {
        "empty file": 1,
        "hidden": 1,
        "in no folder whose name tells real or fake": 1,
        "link that points nowhere": 1,
        "no picture (.txt)": 1,
    }


def test_one_class_and_a_folder_that_names_none(tmp_path: Path) -> None:
    film(tmp_path / "downloads/a.mp4")
    still(tmp_path / "downloads/b.png")
    with pytest.raises(UserError, match="no folder whose name tells a class"):
        taken(tmp_path / "downloads")
    assert taken(tmp_path / "downloads", label="fake") == {"fake/b": "picture", "fake/a": "video"}
    assert taken(tmp_path, ClassWords(real=("downloads",))) == {"real/b": "picture", "real/a": "video"}


def test_equal_names_get_more_of_their_path(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.avi", "b.mp4"):
        film(tmp_path / "real" / name)
    assert set(taken(tmp_path)) == {"real/a_mp4", "real/a_avi", "real/b"}
    film(tmp_path / "set/real/b.mp4")
    assert {"real/real__b_mp4", "real/set__real__b_mp4"} <= set(taken(tmp_path))


def test_split_folders_are_kept(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        film(tmp_path / split / "real" / f"{split}.mp4")
    assert {s.name: s.split for s in find_sources(tmp_path, ClassWords()).sources} == {
        "train": "train",
        "val": "val",
        "test": "test",
    }


def test_nothing_to_take_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no videos or pictures"):
        taken(tmp_path)
    with pytest.raises(UserError, match="is none"):
        taken(tmp_path / "nowhere")


def test_a_source_is_known_by_its_content(tmp_path: Path) -> None:
    path = film(tmp_path / "real/a.mp4")
    source = CropSource("real", "a", tmp_path, ("real/a.mp4",), "video", None)
    look, digest = source.look(), source.sha256()
    os.utime(path, ns=(5, 5))
    assert source.look() != look
    assert source.sha256() == digest
    path.write_bytes(b"something else")
    assert source.sha256() != digest
