"""Cropping again: what changed is redone, what is gone takes its crops along, and no count is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.data import crop_dataset as module
from effort_finetune.data import crop_source as work
from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.crop_dataset import CropRun, crop_dataset, gather_shares, summary
from effort_finetune.data.crop_options import CropOptions
from effort_finetune.data.crop_record import SourceReport, read_record
from effort_finetune.data.crop_sources import find_sources
from effort_finetune.data.face_finder import Face
from effort_finetune.data.faces import template
from effort_finetune.data.finder_choice import FinderChoice
from effort_finetune.data.folder import list_clips, pack_crops

from .test_videos import write_several, write_video

OPTIONS = CropOptions(without="cropped", count=None, every=1, size=16)


def crop(source: Path, target: Path, options: CropOptions = OPTIONS, **more: object) -> CropRun:
    return crop_dataset(find_sources(source, ClassWords()), target, options, **more)  # type: ignore[arg-type]


def by_title(run: CropRun) -> dict[str, SourceReport]:
    return {report.title: report for report in run.reports}


def pictures(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*.png"))}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two videos of three frames in each class."""
    for label in ("real", "fake"):
        for name in ("a", "b"):
            write_video(tmp_path / "source" / label / f"{name}.avi", 3)
    return tmp_path / "source"


def frames(folder: Path, count: int = 3, grey: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), grey + number, np.uint8))
    return folder


class GreyFinder:
    """Sees a face in frames that are not black, and none again in the crop of frame 4."""

    name, model_hash, licence = "grey", "0" * 64, "none"

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        found = []
        for image in images:
            number = round(int(image.max()) / 5)
            points = template(32, 1.0)
            face = Face((0, 0, 32, 32), 1.0, points, np.full((81, 2), 16.0))
            found.append([] if number == (4 if len(image) == 256 else 0) else [face])
        return found


def test_nothing_is_dropped_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FinderChoice, "make", lambda _: GreyFinder())
    for label in ("real", "fake"):
        write_video(tmp_path / "source" / label / "000.avi", 12)
    (tmp_path / "source/fake/broken.mp4").write_bytes(b"text")
    target = tmp_path / "rgb"
    options = CropOptions(FinderChoice("dlib81", tmp_path, "test"), count=None, every=2)
    run = crop(tmp_path / "source", target, options)
    report = by_title(run)["real/000"]
    assert (report.frames, report.crops, report.no_face, report.lost) == (6, 4, 1, 1)
    assert "cannot be opened" in (by_title(run)["fake/broken"].error or "")
    places = sorted(path.name for path in (target / "real/frames/000").iterdir())
    assert places == ["002.png", "006.png", "008.png", "010.png"]
    assert np.load(target / "real/landmarks/000/002.npy").dtype == np.uint32
    again = crop(tmp_path / "source", target, options)
    assert again.done_before == {"real/000", "fake/000"}
    assert again.reports == run.reports
    words = [" ".join(line.split()) for line in summary(again)]
    assert words[:3] == [
        "8 crops of 2 sources (1 real, 1 fake; 2 sources are as they were)",
        "2 frames without a face",
        "2 crops in which no face was found again",
    ]
    assert "1 source that cannot be read" in words


def test_pictures_that_cannot_be_decoded_are_counted_by_reason(tmp_path: Path) -> None:
    for place in ("real/frames/a", "real/frames/b", "fake/frames/a"):
        frames(tmp_path / "source" / place)
    (tmp_path / "source/real/frames/a/1.png").write_bytes(b"not an image")
    for number in range(3):
        (tmp_path / f"source/fake/frames/a/{number}.png").write_bytes(b"x")
    run = crop(tmp_path / "source", tmp_path / "rgb")
    report = by_title(run)["real/a"]
    assert (report.frames, report.crops, report.unreadable) == (3, 2, 1)
    assert report.reasons == {"no picture in a known format, or a damaged one": 1}
    assert "no picture can be decoded" in (by_title(run)["fake/a"].error or "")
    assert any("1  frame that cannot be decoded: no picture in a known" in line for line in summary(run))


def test_an_animated_picture_is_a_video_and_pages_are_pictures_of_one_source(tmp_path: Path) -> None:
    for label in ("real", "fake"):
        (tmp_path / "source" / label).mkdir(parents=True)
        write_several(tmp_path / "source" / label / "moves.png", "PNG")
        write_several(tmp_path / "source" / label / "pages.tif", "TIFF")
    target = tmp_path / "rgb"
    report = by_title(crop(tmp_path / "source", target))
    assert {(r.kind, r.frames, r.crops) for r in report.values() if r.title.endswith("moves")} == {
        ("video", 6, 6)
    }
    assert {(r.kind, r.frames, r.crops) for r in report.values() if r.title.endswith("pages")} == {
        ("picture", 6, 6)
    }
    record = json.loads((target / "crops.json").read_text())
    for entry in record["sources"]:  # as versions before this one wrote it: the first frame alone
        entry["kind"] = "picture"
    (target / "crops.json").write_text(json.dumps(record))
    again = crop(tmp_path / "source", target)
    assert again.done_before == {"real/pages", "fake/pages"}
    assert by_title(again)["real/moves"].kind == "video"


def test_a_corrected_label_takes_its_crops_along(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "rgb" / "Mine"
    crop(source, target)
    (source / "real" / "b.avi").rename(source / "fake" / "moved.avi")
    run = crop(source, target)
    assert run.removed == ("real/b",)
    assert run.done_before == {"real/a", "fake/a", "fake/b"}
    clips = list_clips(tmp_path / "rgb", "Mine")
    assert [(c.label, c.name) for c in clips] == [
        ("real", "a"),
        ("fake", "a"),
        ("fake", "b"),
        ("fake", "moved"),
    ]
    fresh = tmp_path / "fresh"
    crop(source, fresh)
    assert pictures(fresh) == pictures(target)
    assert not [path for path in target.iterdir() if path.name.startswith(".")]


def test_what_changed_is_done_again_and_what_was_touched_is_not(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "rgb"
    frames(source / "fake/frames/c")
    crop(source, target)
    write_video(source / "real" / "a.avi", 5)
    frames(source / "fake/frames/c", count=4)
    os.utime(source / "fake" / "a.avi", ns=(1, 1))
    (source / "fake" / "b.avi").unlink()
    run = crop(source, target)
    assert run.done_before == {"real/b", "fake/a"}
    assert run.removed == ("fake/b",)
    assert [(r.title, r.crops) for r in run.reports] == [
        ("real/a", 5),
        ("real/b", 3),
        ("fake/c", 4),
        ("fake/a", 3),
    ] or {r.title: r.crops for r in run.reports} == {"real/a": 5, "real/b": 3, "fake/a": 3, "fake/c": 4}
    fresh = tmp_path / "fresh"
    crop(source, fresh)
    assert pictures(fresh) == pictures(target)


def test_crops_that_were_deleted_are_made_again(source: Path, tmp_path: Path) -> None:
    crop(source, tmp_path / "rgb")
    (tmp_path / "rgb/real/frames/a/001.png").unlink()
    shutil.rmtree(tmp_path / "rgb/fake/frames/b")
    assert crop(source, tmp_path / "rgb").done_before == {"real/b", "fake/a"}
    assert len(pictures(tmp_path / "rgb")) == 12


def test_other_options_crop_all_again(source: Path, tmp_path: Path) -> None:
    crop(source, tmp_path / "rgb")
    run = crop(source, tmp_path / "rgb", replace(OPTIONS, size=32))
    assert not run.done_before
    assert cv2.imread(str(tmp_path / "rgb/real/frames/a/000.png")).shape == (32, 32, 3)


def test_a_folder_that_moved_keeps_its_crops_and_another_one_adds_to_them(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "rgb"
    crop(source, target)
    moved = source.rename(tmp_path / "other disk")
    (moved / "fake" / "b.avi").unlink()
    run = crop(moved, target)
    assert (run.done_before, run.removed) == ({"real/a", "real/b", "fake/a"}, ("fake/b",))
    write_video(tmp_path / "more" / "real" / "c.avi", 2)
    run = crop(tmp_path / "more", target)
    assert (run.removed, sorted(run.kept)) == ((), ["fake/a", "real/a", "real/b"])
    assert len(pictures(target)) == 11


def test_crops_of_others_are_not_touched(source: Path, tmp_path: Path) -> None:
    frames(tmp_path / "rgb/real/frames/a")
    with pytest.raises(UserError, match="crops that prepare did not make; got real/a"):
        crop(source, tmp_path / "rgb")
    assert len(pictures(tmp_path / "rgb")) == 3


KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from effort_finetune.data import crop_dataset as module, crop_source as work
from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.crop_options import CropOptions
from effort_finetune.data.crop_sources import find_sources

place, steps = sys.argv[3], itertools.count(1)
owner = work if place == "_save_image" else module.os if place == "replace" else module.Journal
before = getattr(owner, place)

def die_at_the_fifth(*arguments):
    if next(steps) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return before(*arguments)

setattr(owner, place, die_at_the_fifth)
options = CropOptions(without="cropped", count=None, every=1, size=16)
module.crop_dataset(find_sources(Path(sys.argv[1]), ClassWords()), Path(sys.argv[2]), options)
"""


@pytest.mark.parametrize(
    ("place", "step", "done"), [("_save_image", 5, 1), ("replace", 2, 1), ("finished", 3, 2)]
)
def test_a_killed_run_is_taken_up_and_leaves_nothing(
    source: Path, tmp_path: Path, place: str, step: int, done: int
) -> None:
    frames(source / "real/frames/c")
    (source / "real/frames/c/1.png").write_bytes(b"not an image")
    target = tmp_path / "rgb" / "Mine"
    words = [str(source), str(target), place, str(step)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], check=False)
    assert killed.returncode == -signal.SIGKILL
    run = crop(source, target)
    assert len(run.done_before) == done
    fresh = tmp_path / "fresh"
    assert run.reports == crop(source, fresh).reports
    assert pictures(target) == pictures(fresh)
    assert not [path for path in target.iterdir() if path.name.startswith(".")]
    assert pack_crops(tmp_path / "rgb", tmp_path / "lmdb", "Mine")[1] == 14


def test_a_run_that_is_stopped_leaves_the_counts_of_what_it_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = work._save_image

    def stop(image: np.ndarray, folder: Path, stem: str) -> None:
        if (tmp_path / "rgb/real/frames/a").exists():
            raise KeyboardInterrupt
        save(image, folder, stem)

    monkeypatch.setattr(work, "_save_image", stop)
    with pytest.raises(KeyboardInterrupt):
        crop(source, tmp_path / "rgb")
    record = read_record(tmp_path / "rgb")
    assert record is not None
    assert list(record.reports) == ["real/a"]


def test_shares_together_are_the_whole(source: Path, tmp_path: Path) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    crop(source, whole)
    for number in (1, 2, 3):
        crop(source, shared, shard=(number, 3))
        assert not (shared / "crops.json").exists()
    record = gather_shares(shared)
    assert record is not None
    assert pictures(shared) == pictures(whole)
    assert sorted(record.reports) == ["fake/a", "fake/b", "real/a", "real/b"]
    assert (shared / "crops.json").is_file()
    assert not (shared / ".crops").exists()
    assert len(crop(source, shared).done_before) == 4


def test_processes_make_the_same_crops(source: Path, tmp_path: Path) -> None:
    one, two = crop(source, tmp_path / "one"), crop(source, tmp_path / "two", workers=2)
    assert one == two
    assert pictures(tmp_path / "one") == pictures(tmp_path / "two")


def killed(*_: object, **__: object) -> tuple[SourceReport, None]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive")


def test_a_killed_process_is_named_and_not_waited_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "crop_source", killed)
    with pytest.raises(RunFailure, match="process that cuts faces was killed"):
        crop(source, tmp_path / "rgb", workers=2)


def test_a_damaged_record_is_named(source: Path, tmp_path: Path) -> None:
    crop(source, tmp_path / "rgb")
    (tmp_path / "rgb/crops.json").write_text("{")
    with pytest.raises(UserError, match=r"crops.json is damaged.*remove the file"):
        crop(source, tmp_path / "rgb")
    (tmp_path / "rgb/crops.json").write_text(json.dumps({"options": {}, "videos": [{"name": "real/a"}]}))
    with pytest.raises(UserError, match="prepare did not make"):
        crop(source, tmp_path / "rgb")


@pytest.mark.parametrize(
    "title", ["real/../../victim", "real/..", "/etc", "other/0", "real/a/../../x", "real\\\\..", 3]
)
def test_a_record_names_no_folder_outside_its_dataset(tmp_path, title):
    """prepare removes and replaces what its record names."""
    report = dict.fromkeys(("root", "place", "kind", "look", "sha256", "shape"), "x")
    sources = [{**report, "title": title}, {**report, "title": "real/good"}]
    (tmp_path / "crops.json").write_text(json.dumps({"options": {}, "sources": sources}))
    assert list(read_record(tmp_path).reports) == ["real/good"]
