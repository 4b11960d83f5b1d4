import json
import runpy
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.data.folder import index_crops, pack_crops
from effort_finetune.data.frames import Missing, open_frames
from effort_finetune.data.persons import by_pattern
from effort_finetune.data.splits import Clip, assign_splits

from .conftest import EMBEDDED, Bench, picture
from .test_videos import write_video

RATIOS = {"train": 0.6, "val": 0.2, "test": 0.2}


# splits


def clips(*names: str) -> list[Clip]:
    return [Clip(name, label, ("f",)) for name in names for label in ("real", "fake")]


def test_by_pattern() -> None:
    assert by_pattern("000_003", r"(\d+)") == ("000", "003")
    assert by_pattern("id5_0004", r"(id\d+)_") == ("id5",)
    assert by_pattern("clip", r"(\d+)") == ("clip",)
    with pytest.raises(UserError, match="regular expression"):
        by_pattern("x", "(")


def test_no_person_is_in_two_splits() -> None:
    reals = [Clip(f"{person:03d}", "real", ("f",)) for person in range(60)]
    fakes = [
        Clip(f"{person:03d}_{person + 1 - 2 * (person % 2):03d}", "fake", ("f",)) for person in range(60)
    ]
    assigned = assign_splits([*reals, *fakes], ratios=RATIOS, seed=1, identity=r"(\d+)")
    homes = defaultdict(set)
    for (_, name), split in assigned.items():
        for person in by_pattern(name, r"(\d+)"):
            homes[person].add(split)
    assert len(homes) == 60
    assert all(len(splits) == 1 for splits in homes.values())
    for label in ("real", "fake"):
        counts = [sum(s == split and k == label for (k, _), s in assigned.items()) for split in RATIOS]
        assert counts == [36, 12, 12]


def test_a_fake_stays_with_the_real_of_its_name() -> None:
    assigned = assign_splits(clips(*(f"v{n}" for n in range(20))), ratios=RATIOS, seed=1)
    assert all(assigned["real", f"v{n}"] == assigned["fake", f"v{n}"] for n in range(20))


def test_the_seed_decides_and_decides_again() -> None:
    many = clips(*(f"v{n}" for n in range(30)))
    first, again, other = (assign_splits(many, ratios=RATIOS, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be divided by person"):
        assign_splits(clips("1_2", "2_3", "3_4"), ratios=RATIOS, seed=1, identity=r"(\d+)")
    for ratios in ({"train": 0.5, "val": 0.2, "test": 0.2}, {"train": 1.2, "val": -0.2, "test": 0.0}):
        with pytest.raises(UserError, match="--ratios"):
            assign_splits(clips("a", "b", "c"), ratios=ratios, seed=1)
    assert set(assign_splits(clips("a"), ratios={"train": 1.0, "val": 0, "test": 0}, seed=1).values()) == {
        "train"
    }


# the three steps


def test_index_and_lmdb_of_crops_are_read_back(embedded: Bench) -> None:
    rgb = embedded.root / "rgb"
    for label in ("real", "fake"):
        for number in range(10):
            folder = rgb / "Mine" / label / "frames" / f"{number:03d}"
            folder.mkdir(parents=True)
            for frame in (10, 2, 33):
                cv2.imwrite(str(folder / f"{frame:03d}.png"), picture(number + frame))
            points = rgb / "Mine" / label / "landmarks" / f"{number:03d}"
            points.mkdir(parents=True)
            np.save(points / "002.npy", np.arange(162).reshape(81, 2))
    made = index_crops(rgb, embedded.root / "json", "Mine", ratios=RATIOS, seed=1)
    assert made.path.name == "Mine.json"
    assert len(made.videos) == 20
    assert made.recipe is None, "crops made elsewhere"
    assert pack_crops(rgb, embedded.root / "lmdb", "Mine")[1] == 80
    labels = {"Mine_Real": 0, "Mine_Fake": 1}
    sets = [
        open_frames(
            embedded.host, embedded.settings(label_dict=labels, lmdb=lmdb), split="train", names=["Mine"]
        )
        for lmdb in (True, False)
    ]
    assert [row.path[-7:] for row in sets[0].rows[:3]] == ["002.png", "010.png", "033.png"]
    assert sets[0].protocol["datasets"]["Mine"]["path_rule"] == "host"
    for index in range(len(sets[0])):
        first, second = sets[0][index], sets[1][index]
        assert not isinstance(first, Missing)
        assert first["image"].equal(second["image"])
    if hasattr(embedded.host.dataset_class, "load_landmark"):
        config = embedded.settings(label_dict=labels).to_dict() | {"test_dataset": "Mine"}
        host = embedded.host.dataset_class(config, "test")
        marks = host.load_landmark("Mine\\real\\frames\\003\\002.png")
        np.testing.assert_allclose(marks, np.arange(162).reshape(81, 2) * 32 / 256, rtol=1e-6)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for label in ("real", "fake"):
        for number in range(6):
            write_video(
                tmp_path / "videos" / label / f"{number:03d}.avi", 12 + number + 6 * (label == "fake")
            )
    return tmp_path / "videos"


@pytest.fixture
def where(tmp_path: Path) -> list[str]:
    """Flags of a host whose folders are empty ones."""
    yaml = tmp_path / "detector.yaml"
    folders = {key: str(tmp_path / key) for key in ("rgb_dir", "lmdb_dir", "dataset_json_folder")}
    yaml.write_text(json.dumps({**folders, "label_dict": {"Mine_Real": 0, "Mine_Fake": 1}}))
    return ["--host", str(EMBEDDED), "--detector_config", str(yaml)]


def test_one_command_from_videos_to_a_checked_dataset(
    videos: Path, tmp_path: Path, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--faces", "cropped", "--num_frames", "4", "--jobs", "1"]
    one = ["prepare", str(videos), "--name", "Mine", *options, "--ratios", "0.5", "0.25", "0.25", *where]
    assert main(one) == 0
    out = capsys.readouterr().out
    assert "48  crops of 12 sources (6 real, 6 fake)" in out
    assert "train 3 real, 3 fake" in out
    assert "6 persons" in out
    assert main(["check-data", "Mine", "--decode", "all", *where]) == 0
    assert "decoded 48 frames: 48 of 256x256" in capsys.readouterr().out
    index = json.loads((tmp_path / "dataset_json_folder/Mine.json").read_text())
    assert index["label_dict"] == {"Mine_Real": 0, "Mine_Fake": 1}
    assert {k: index["crop_recipe"][k] for k in ("finder", "size", "fit")} == {
        "finder": "cropped",
        "size": 256,
        "fit": "crop",
    }
    # A label is corrected: index and LMDB follow.
    (videos / "real" / "005.avi").rename(videos / "fake" / "moved.avi")
    assert main(one) == 0
    assert "1  source that is gone" in capsys.readouterr().out
    text = (tmp_path / "dataset_json_folder/Mine.json").read_text()
    assert "real\\\\frames\\\\005" not in text
    assert "fake\\\\frames\\\\moved" in text
    assert main(["check-data", "Mine", "--decode", "all", *where]) == 0


def test_the_three_steps_do_the_same(
    videos: Path, tmp_path: Path, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    crop = [
        "prepare",
        "crop",
        "Mine",
        "--videos",
        str(videos),
        "--faces",
        "cropped",
        "--num_frames",
        "4",
        *where,
    ]
    for share in ("1/2", "2/2"):
        assert main([*crop, "--shard", share, "--jobs", "1"]) == 0
    assert main(["prepare", "index", "Mine", "--ratios", "0.5", "0.25", "0.25", *where]) == 0
    assert "train 3 real, 3 fake" in capsys.readouterr().out
    assert (tmp_path / "rgb_dir/Mine/crops.json").is_file()
    assert main(["prepare", "lmdb", "Mine", *where]) == 0
    assert main(["check-data", "Mine", "--decode", "all", *where]) == 0
    capsys.readouterr()
    for wrong in (
        ["prepare", "index", "Nobody", *where],
        ["prepare", "lmdb", "../x", *where],
        ["prepare", "nowhere", "--name", "Mine", *where],
        ["prepare", "nowhere"],
        ["prepare", str(videos), "--name", "Mine", "--faces", "eyes", *where],
        ["prepare", str(videos), "--name", "Mine", "--jobs", "100000", *where],
        ["prepare", str(videos), "--name", "Mine", "--margin", "0.5", *where],
        [*crop, "--shard", "3/2"],
    ):
        assert main(wrong) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_loose_pictures_of_generators_without_faces(tmp_path: Path, where: list[str]) -> None:
    for label in ("0_real", "1_fake"):
        for number in range(6):
            folder = tmp_path / "aigi" / label
            folder.mkdir(parents=True, exist_ok=True)
            image = cv2.resize(picture(number + 100 * (label == "1_fake")), (60, 40))
            cv2.imwrite(str(folder / f"{label}{number}.png"), image)
    words = ["--faces", "whole", "--jobs", "1", "--ratios", "0.5", "0.25", "0.25", *where]
    assert main(["prepare", str(tmp_path / "aigi"), "--name", "Mine", *words]) == 0
    assert len(list((tmp_path / "rgb_dir/Mine").rglob("000.png"))) == 12


def test_copies_of_a_picture_under_other_names_stay_in_one_split(tmp_path: Path, where: list[str]) -> None:
    for label in ("real", "fake"):
        folder = tmp_path / "faces" / label
        folder.mkdir(parents=True)
        for number in range(8):
            image = picture(number + 100 * (label == "fake"), 64)
            cv2.imwrite(str(folder / f"{label}{number}.png"), image)
            cv2.imwrite(str(folder / f"saved_{label}{number}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
            cv2.imwrite(str(folder / f"turned_{label}{number}.png"), image[:, ::-1])
    words = ["--faces", "whole", "--jobs", "1", "--ratios", "0.5", "0.25", "0.25", *where]
    assert main(["prepare", str(tmp_path / "faces"), "--name", "Mine", *words]) == 0
    (index,) = tmp_path.rglob("Mine.json")
    for group in json.loads(index.read_text())["Mine"].values():
        homes = defaultdict(set)
        for split, videos in group.items():
            for name in videos:
                homes[name.rpartition("_")[2]].add(split)
        assert len(homes) == 8
        assert all(len(splits) == 1 for splits in homes.values())


@pytest.mark.parametrize("script", ["preprocess.py", "rearrange.py", "dataset2lmdb.py"])
def test_the_hosts_preprocessing_commands_are_the_same_steps(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = EMBEDDED / "preprocessing" / script
    assert len(path.read_text().splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    words = ["--videos", str(tmp_path), "--faces", "cropped"] if script == "preprocess.py" else []
    monkeypatch.setattr(sys, "argv", [str(path), "Nobody", "--rgb_dir", str(tmp_path), *words])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(path), run_name="__main__")
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_one_source_that_cannot_be_read_stops_no_chain_and_many_do(
    videos: Path, tmp_path: Path, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["prepare", str(videos), "--name", "Mine", "--faces", "cropped", "--jobs", "1", *where]
    (videos / "real" / "broken.avi").write_bytes(b"RIFF0000AVI ")
    assert main(one) == 0
    assert "warning: 1 of 13 sources could not be read" in capsys.readouterr().err
    (videos / "fake" / "broken2.avi").write_bytes(b"RIFF0000AVI ")
    assert main(one) == 1
    assert "error: 2 of 14 sources could not be read, above" in capsys.readouterr().err


def test_the_index_brings_its_labels_whatever_it_is_called(embedded: Bench) -> None:
    clip = embedded.root / "rgb" / "Mine"
    for label in ("real", "fake"):
        for number in range(4):
            place = clip / label / "frames" / f"v{number}{label}" / "000.png"
            place.parent.mkdir(parents=True)
            cv2.imwrite(str(place), picture(number))
    made = index_crops(embedded.root / "rgb", embedded.root / "json", "Mine", ratios=RATIOS, seed=1)
    index = json.loads(made.path.read_text())
    renamed = {"Other": index.pop("Mine"), **index}
    (embedded.root / "json" / "Other.json").write_text(json.dumps(renamed))
    for name in ("Mine", "Other"):
        settings = embedded.settings(
            label_dict={"Unrelated": 0}, lmdb=False, rgb_dir=str(embedded.root / "rgb")
        )
        rows = open_frames(embedded.host, settings, split="train", names=[name]).rows
        assert {(row.label_name, row.label) for row in rows} == {("Mine_Real", 0), ("Mine_Fake", 1)}
