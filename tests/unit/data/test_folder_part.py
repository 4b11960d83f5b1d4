"""Datasets given by path: classes, samples, groups, persons, splits and what a test may read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.data.class_words import ClassWords, split_of, tokens
from effort_finetune.data.dataset_name import check_names, file_stem, is_path, labels_of, tag_of
from effort_finetune.data.folder import index_crops, pack_crops
from effort_finetune.data.folder_division import read_folder
from effort_finetune.data.folder_options import FolderOptions
from effort_finetune.data.folder_part import TrainedFolder, folder_part
from effort_finetune.data.frames import open_frames

from .conftest import Bench, picture


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save(path: Path, seed: int, *, size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed, size))
    return path


def stills(root: Path, folder: str, count: int, *, first: int = 0) -> None:
    for number in range(count):
        save(root / folder / f"{folder.replace('/', '_')}_{first + number}.png", hash_of(folder) + number)


def hash_of(text: str) -> int:
    return sum(ord(c) * 977**i for i, c in enumerate(text)) % 10**6


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        *[
            (w, ("real",))
            for w in ("real", "0_real", "REAL", "real_images", "original-1", "nature", "true.0")
        ],
        *[(w, ("fake",)) for w in ("fake", "1_fake", "ai", "AI_gen", "generated", "Deepfakes", "fake12")],
        *[(w, ()) for w in ("Real3DPortrait", "DDIM", "whichfaceisreal", "aipaca", "000", "train")],
        ("real_vs_fake", ("real", "fake")),
    ],
)
def test_a_folder_tells_its_class_by_whole_words(name, classes):
    assert ClassWords().classes(name) == classes


def test_the_users_names_win_over_the_table():
    words = ClassWords(real=("ffhq*",), fake=("real",))
    assert words.classes("FFHQ_1024") == ("real",)
    assert words.classes("real") == ("fake",)
    assert words.classes("original") == ()
    assert tokens("0_real-img.2") == {"real", "img"}
    assert [split_of(n) for n in ("Train", "validation", "test", "trainset")] == [
        "train",
        "val",
        "test",
        None,
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("UADFV", False), ("Celeb-DF-v2", False), ("./x", True), ("a/b", True), ("~/x", True), ("x/", True)],
)
def test_a_separator_dot_or_tilde_makes_a_path(name, expected):
    assert is_path(name) is expected


def test_labels_are_the_shortest_unique_tails(embedded: Bench):
    settings = embedded.settings(
        train_dataset=["d/A/Gen", "d/B/gen", "./d/C", "UADFV"], test_dataset=["d/B/gen/"]
    )
    labels = labels_of(settings)
    assert [labels[n] for n in settings.train_dataset] == ["A/Gen", "B/gen", "C", "UADFV"]
    assert labels["d/B/gen/"] == "B/gen"  # one folder, one label, however it is spelt
    assert labels_of(embedded.settings(train_dataset=["x/\x1b[2J"]))["x/\x1b[2J"] == r"\x1b[2J"
    assert file_stem("A/Gen x") == "A__Gen%20x"
    assert tag_of(["a", *(f"g{n}" for n in range(44))]) == "a+44"


def test_every_name_is_checked_before_anything_is_read(embedded: Bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facedata" / "Gen1").mkdir(parents=True)
    which = ("train_dataset",)
    assert check_names(embedded.host, embedded.settings(train_dataset=["facedata/Gen1"]), which=which) == []
    with pytest.raises(UserError, match="Gen1"):
        check_names(embedded.host, embedded.settings(train_dataset=["facedata/Gen2"]), which=which)
    twice = embedded.settings(train_dataset=["facedata/Gen1", "./facedata/Gen1/"])
    with pytest.raises(UserError, match="twice"):
        check_names(embedded.host, twice, which=which)


def test_samples_groups_and_what_is_left_out(tmp_path):
    stills(tmp_path, "real", 4)
    stills(tmp_path, "fake/DDIM", 3)
    stills(tmp_path, "fake/Real3DPortrait", 2)
    save(tmp_path / "other" / "x.png", 1)
    save(tmp_path / "real" / "masks" / "m.png", 1)
    (tmp_path / "fake" / "clip.mp4").write_bytes(b"x")
    (tmp_path / "fake" / "empty.png").write_bytes(b"")
    (tmp_path / "fake" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "fake" / "round").symlink_to(tmp_path)
    content = read_folder(tmp_path, FolderOptions())
    groups = [(s.label, s.group) for s in content.samples]
    assert groups == [("real", None)] * 4 + [("fake", "DDIM")] * 3 + [("fake", "Real3DPortrait")] * 2
    skipped = content.sampled.skipped
    assert skipped["in no folder whose name tells real or fake"] == 1
    assert skipped["empty file"] == skipped["link that points nowhere"] == 1
    assert skipped["folder of masks or landmarks"] == skipped["link back to a folder above"] == 1
    assert sum(count for reason, count in skipped.items() if reason.startswith("video")) == 1


def test_a_folder_that_tells_both_classes_is_an_error_where_it_decides(tmp_path):
    stills(tmp_path, "real_vs_fake/real", 2)
    stills(tmp_path, "real_vs_fake/fake", 2)
    assert len(read_folder(tmp_path, FolderOptions()).samples) == 4  # the deeper folders decide
    stills(tmp_path, "real_vs_fake/real_or_fake", 1)
    with pytest.raises(UserError, match="real and fake at once"):
        read_folder(tmp_path, FolderOptions())


def test_frames_of_a_video_and_numbered_stills_are_told_apart_by_their_looks(tmp_path):
    for label in ("real", "fake"):
        for clip in range(3):
            scene = picture(hash_of(label) + clip, 64)
            for frame in range(3):
                path = tmp_path / "v" / label / f"clip{clip}" / f"{frame:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.roll(scene, frame, axis=1))
        for generator in ("DDIM", "PNDM"):
            for number in range(4):
                save(
                    tmp_path / "s" / label / generator / f"{number}.png", hash_of(label + generator) + number
                )
    videos = read_folder(tmp_path / "v", FolderOptions()).samples
    assert len(videos) == 6
    assert not any(sample.still for sample in videos)
    loose = read_folder(tmp_path / "s", FolderOptions()).samples
    assert len(loose) == 16
    assert all(sample.still for sample in loose)
    as_told = read_folder(tmp_path / "s", FolderOptions(samples="videos")).samples
    assert [s.name for s in as_told] == ["DDIM", "PNDM"] * 2


def split_rows(bench: Bench, folder: Path, split: str, **flags) -> set[str]:
    settings = bench.settings(train_dataset=[f"{folder}/"], **flags)
    return {row.path for row in open_frames(bench.host, settings, split=split, names=[f"{folder}/"]).rows}


def test_a_training_folder_is_divided_once_and_disjoint(embedded: Bench, tmp_path):
    stills(tmp_path / "g", "real", 20)
    stills(tmp_path / "g", "fake", 20)
    parts = [split_rows(embedded, tmp_path / "g", split) for split in ("train", "val")]
    assert [len(part) for part in parts] == [32, 4]
    assert not parts[0] & parts[1]
    assert parts[0] == split_rows(embedded, tmp_path / "g", "train")
    assert parts[0] != split_rows(embedded, tmp_path / "g", "train", manualSeed=7)
    assert len(split_rows(embedded, tmp_path / "g", "test")) == 40  # not trained on: all of it


def test_what_was_trained_on_gives_its_held_out_share_only(embedded: Bench, tmp_path):
    folder = tmp_path / "g"
    stills(folder, "real", 20)
    stills(folder, "fake", 20)
    settings = embedded.settings()
    content = read_folder(folder, FolderOptions.of(settings))
    trained = TrainedFolder("g", content.sha256, FolderOptions.of(settings).to_dict())
    again = TrainedFolder.of_record(trained.record("crop"))
    seen = {s.place for s in folder_part(folder, settings, split="train").samples}
    for record in (trained, again):
        part = folder_part(folder, embedded.settings(manualSeed=3), split="test", trained=[record])
        assert part.taken == "held-out share"
        assert len(part.samples) == 4
        assert not seen & {s.place for s in part.samples}
    everything = folder_part(folder, embedded.settings(split="all"), split="test", trained=[trained])
    assert len(everything.samples) == 40
    assert any("trained on" in w for w in everything.warnings)
    save(folder / "real" / "later.png", 5)
    changed = folder_part(folder, settings, split="test", trained=[trained])
    assert len(changed.samples) == 41
    assert any("not known" in w for w in changed.warnings)


def test_split_folders_are_used_as_they_are(embedded: Bench, tmp_path):
    for split, count in (("train", 6), ("val", 2)):
        for label in ("real", "fake"):
            stills(tmp_path / "g", f"{split}/{label}", count)
    settings = embedded.settings()
    counts = {
        s: len(folder_part(tmp_path / "g", settings, split=s).samples) for s in ("train", "val", "test")
    }
    assert counts == {"train": 12, "val": 4, "test": 4}
    assert "val folder" in folder_part(tmp_path / "g", settings, split="test").warnings[0]
    stills(tmp_path / "g", "test/real", 3)
    assert len(folder_part(tmp_path / "g", settings, split="test").samples) == 3
    stills(tmp_path / "t", "train/real", 10)
    only = {s: len(folder_part(tmp_path / "t", settings, split=s).samples) for s in ("train", "val")}
    assert only == {"train": 9, "val": 1}


@pytest.mark.parametrize("tested", ["test", "val"])
def test_persons_of_the_train_folder_met_again_in_the_tested_one_are_said(
    embedded: Bench, tmp_path, tested: str
):
    for split, clips in (("train", range(6)), (tested, range(4, 8))):
        for label in ("real", "fake"):
            for clip in clips:
                for frame in range(2):
                    place = tmp_path / "g" / split / label / "frames" / f"{label}{clip:03d}" / f"{frame}.png"
                    save(place, hash_of(f"{split}{label}{clip}") + frame)
    settings = embedded.settings()
    record = TrainedFolder("g", read_folder(tmp_path / "g", FolderOptions.of(settings)).sha256)
    part = folder_part(tmp_path / "g", settings, split="test", trained=[record])
    assert len(part.samples) == 8
    (told,) = [warning for warning in part.warnings if "persons" in warning]
    assert told.startswith(
        f"4 of 8 samples of its {tested} folder show persons or pictures of its train folder"
    )
    fresh = folder_part(tmp_path / "g", settings, split="test")
    assert not [warning for warning in fresh.warnings if "persons" in warning], "not trained on: nothing met"


def test_limit_takes_so_many_of_each_class(embedded: Bench, tmp_path):
    stills(tmp_path / "g", "real", 9)
    stills(tmp_path / "g", "fake", 4)
    part = folder_part(tmp_path / "g", embedded.settings(limit=5), split="test")
    assert [s.label for s in part.samples] == ["real"] * 5 + ["fake"] * 4
    assert part.samples == folder_part(tmp_path / "g", embedded.settings(limit=5), split="test").samples


def test_copies_and_a_stem_in_both_classes_stay_together(embedded: Bench, tmp_path):
    folder = tmp_path / "g"
    for number in range(10):
        save(folder / "real" / f"{number}.png", number)
        save(folder / "fake" / f"{number}.png", 100 + number)  # the forgery of the real of its stem
    for number in range(5):  # saved again as JPEG
        cv2.imwrite(str(folder / "real" / f"copy{number}.jpg"), picture(number, 64))
    people, report = read_folder(folder, FolderOptions()).people()
    assert report.persons == 10
    assert report.joined["stem in both classes"] == 10
    assert report.joined["equal look"] == 5
    assert sorted(map(len, people)) == [2] * 5 + [3] * 5


def test_a_video_saved_again_under_another_name_stays_with_it(tmp_path):
    folder = tmp_path / "g"
    for clip in range(4):
        for frame in range(3):
            save(folder / "real" / "frames" / f"clip{clip}" / f"{frame}.png", 10 * clip + frame)
    for frame in range(3):  # the second one as JPEG, mirrored
        copy = folder / "real" / "frames" / "other" / f"{frame}.jpg"
        copy.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(copy), picture(10 + frame, 64)[:, ::-1])
    people, report = read_folder(folder, FolderOptions()).people()
    assert report.persons == 4
    assert sorted(map(len, people)) == [1, 1, 1, 2]


def test_looks_are_kept_and_never_trusted_when_a_file_changed(tmp_path, monkeypatch):
    stills(tmp_path / "g", "real", 5)
    first = read_folder(tmp_path / "g", FolderOptions())
    assert first.people()[1].persons == 5
    from effort_finetune.data import folder_division, look_cache

    folder_division._read.clear()
    looked: list[str] = []
    original = look_cache._look
    monkeypatch.setattr(look_cache, "_look", lambda folder, p: looked.append(p.path) or original(folder, p))
    read_folder(tmp_path / "g", FolderOptions()).people()
    assert looked == []
    copy = tmp_path / "g" / "real" / "real_0.png"
    copy.write_bytes((tmp_path / "g" / "real" / "real_1.png").read_bytes())
    assert read_folder(tmp_path / "g", FolderOptions()).people()[1].persons == 4
    assert looked == ["real/real_0.png"]


def test_a_folder_and_its_index_give_the_same_rows_and_pixels(embedded: Bench, tmp_path):
    for label in ("real", "fake"):
        for clip in range(10):
            for frame in range(2):
                name = f"{label[0]}{clip:03d}"
                save(
                    tmp_path / "rgb/Mine" / label / "frames" / name / f"{frame:03d}.png",
                    hash_of(name) + frame,
                    size=256,
                )
    ratios = {"train": 0.8, "val": 0.1, "test": 0.1}
    index_crops(tmp_path / "rgb", tmp_path / "json", "Mine", ratios=ratios, seed=1024)
    pack_crops(tmp_path / "rgb", tmp_path / "lmdb", "Mine")
    folder = str(tmp_path / "rgb" / "Mine")
    settings = embedded.settings(train_dataset=["Mine", folder])
    for split, count in (("train", 32), ("val", 4)):
        listed, loose = (
            open_frames(embedded.host, settings, split=split, names=[name]) for name in ("Mine", folder)
        )
        assert len(listed) == len(loose) == count
        for number, (one, other) in enumerate(zip(listed.rows, loose.rows, strict=True)):
            assert (one.path.replace("\\", "/"), one.label) == (f"Mine/{other.path}", other.label)
            assert np.array_equal(listed.load_rgb(number), loose.load_rgb(number))
