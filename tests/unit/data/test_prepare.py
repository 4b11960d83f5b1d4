import json
import multiprocessing
import runpy
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.data import crop_dataset as crops
from effort_finetune.data.crop_dataset import CropOptions, VideoReport, crop_dataset
from effort_finetune.data.faces import FIVE_POINTS, NoFace, crop_face, similarity, template
from effort_finetune.data.folder import index_crops, pack_crops
from effort_finetune.data.frames import Missing, open_frames
from effort_finetune.data.persons import by_pattern
from effort_finetune.data.splits import Clip, assign_splits
from effort_finetune.data.videos import find_videos, frame_numbers, read_frames

from .conftest import EMBEDDED, Bench, picture

RATIOS = {"train": 0.6, "val": 0.2, "test": 0.2}


# faces


def test_similarity_recovers_a_known_map() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(5, 2)) * 50
    angle, scale, shift = 0.4, 1.7, np.array([3.0, -8.0])
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(source, source @ rotation.T + shift)
    np.testing.assert_allclose(matrix, np.column_stack([rotation, shift]), atol=1e-9)


def test_similarity_never_mirrors() -> None:
    source = template(256, 1.3)
    matrix = similarity(source, source * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0
    with pytest.raises(NoFace):
        similarity(np.ones((5, 2)), source)


def test_template_is_arcfaces_with_a_margin_around_the_same_middle() -> None:
    np.testing.assert_allclose(template(112, 1.0)[0], [38.2946, 51.6963])
    tight, wide = template(256, 1.0), template(256, 1.3)
    np.testing.assert_allclose((tight - 128) / 1.3, wide - 128, atol=1e-9)


def painted_face(size: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """A frame with the five points as dots of their own colour, tilted, and the 81 points that hold them."""
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    five = (template(120, 1.0) - 60) @ turn.T + [160, 140]
    points = np.full((81, 2), 150.0)
    points[list(FIVE_POINTS)] = five
    image = np.zeros((size, size, 3), np.uint8)
    for number, (x, y) in enumerate(np.rint(five).astype(int)):
        cv2.circle(image, (int(x), int(y)), 4, (50 + 40 * number, 0, 255 - 40 * number), -1)
    return image, points


def test_the_crop_puts_the_five_points_on_the_template() -> None:
    image, points = painted_face()
    crop = crop_face(image, lambda _: points, size=256, margin=1.3)
    assert crop.image.shape == (256, 256, 3)
    assert crop.landmarks.shape == (81, 2)
    assert crop.landmarks.dtype == np.uint32
    for number, aim in enumerate(template(256, 1.3)):
        colour = np.array([50 + 40 * number, 0, 255 - 40 * number])
        rows, columns = np.nonzero(np.abs(crop.image - colour).sum(2) < 25)
        assert np.hypot(columns.mean() - aim[0], rows.mean() - aim[1]) < 2


def test_no_face_in_the_frame_or_again_in_the_crop() -> None:
    image, points = painted_face()
    with pytest.raises(NoFace, match="in_frame"):
        crop_face(image, lambda _: None)
    answers = iter([points, None])
    with pytest.raises(NoFace, match="in_crop"):
        crop_face(image, lambda _: next(answers))


# videos


def write_video(path: Path, frames: int, size: int = 32) -> Path:
    """Frame n is grey of value 5 n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (size, size))
    for number in range(frames):
        writer.write(np.full((size, size, 3), 5 * number, np.uint8))
    writer.release()
    return path


def test_frames_are_the_ones_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 40)
    for options, numbers in (
        ({"count": 4}, [0, 13, 26, 39]),
        ({"every": 15}, [0, 15, 30]),
        ({"count": 99}, range(40)),
    ):
        read = list(read_frames(path, **options))  # type: ignore[arg-type]
        assert [number for number, _ in read] == list(numbers)
        for number, image in read:
            assert abs(int(image.mean()) - 5 * number) <= 2


def test_a_folder_of_images_is_a_video(tmp_path: Path) -> None:
    folder = tmp_path / "clips" / "one"
    folder.mkdir(parents=True)
    for number in (2, 10, 1):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    assert [int(image.mean()) for _, image in read_frames(folder, every=1)] == [1, 2, 10]
    assert find_videos(tmp_path) == [folder]


def test_frame_numbers_are_the_hosts() -> None:
    assert frame_numbers(270, 32) == np.linspace(0, 269, 32, endpoint=True, dtype=int).tolist()
    assert frame_numbers(3, 32) == [0, 1, 2]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"text")
    with pytest.raises(UserError, match="cannot be opened"):
        list(read_frames(tmp_path / "a.mp4", count=3))
    with pytest.raises(ValueError, match="either"):
        list(read_frames(tmp_path / "a.mp4"))


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


@pytest.fixture
def videos(tmp_path: Path) -> Iterator[Path]:
    for label in ("real", "fake"):
        for number in range(6):
            write_video(tmp_path / "videos" / label / f"{number:03d}.avi", 12)
    crops._finder.cache_clear()
    yield tmp_path / "videos"
    crops._finder.cache_clear()


def fake_finder(_: Path) -> object:
    """Finds no face in black frames, and none again in the crop of frame 4."""
    points = np.full((81, 2), 16.0)
    points[list(FIVE_POINTS)] = template(32, 1.0)

    def find(image: np.ndarray) -> np.ndarray | None:
        number = round(int(image.max()) / 5)
        return None if number == (4 if len(image) == 256 else 0) else points

    return find


def test_crops_are_counted_and_nothing_is_dropped_in_silence(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "dlib_finder", fake_finder)
    options = CropOptions(predictor=tmp_path / "model.dat", count=None, every=2)
    (videos / "fake" / "broken.mp4").write_bytes(b"text")
    target = tmp_path / "rgb" / "Mine"
    reports = {report.name: report for report in crop_dataset(videos, target, options)}
    assert reports["real/003"] == VideoReport("real/003", frames=6, crops=4, no_face=1, lost=1)
    assert "cannot be opened" in (reports["fake/broken"].error or "")
    assert sorted(path.name for path in (target / "real/frames/003").iterdir()) == [
        "002.png",
        "006.png",
        "008.png",
        "010.png",
    ]
    assert np.load(target / "real/landmarks/003/002.npy").dtype == np.uint32
    assert json.loads((target / "crops.json").read_text())["videos"][0]["name"] == "real/000"
    again = crop_dataset(videos, target, options)
    assert [(r.done_before, r.crops) for r in again if not r.error] == [(True, 4)] * 12
    assert not list(target.glob(".crop*"))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the stub finder needs fork"
)
def test_processes_make_the_same_crops(videos: Path, tmp_path: Path) -> None:
    options = CropOptions(faces="cropped", count=3, size=64)
    one = crop_dataset(videos, tmp_path / "one", options)
    two = crop_dataset(videos, tmp_path / "two", options, workers=2)
    assert one == two
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert len(files) == 36
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_missing_model_folder_and_videos_are_user_errors(videos: Path, tmp_path: Path) -> None:
    for options in (CropOptions(), CropOptions(predictor=tmp_path / "none.dat")):
        with pytest.raises(UserError, match="landmark model|need dlib"):
            crop_dataset(videos, tmp_path / "out", options)
    with pytest.raises(UserError, match="real not found"):
        crop_dataset(tmp_path, tmp_path / "out", CropOptions(faces="cropped"))
    for label in ("real", "fake"):
        (tmp_path / "empty" / label).mkdir(parents=True)
    with pytest.raises(UserError, match="no videos in"):
        crop_dataset(tmp_path / "empty", tmp_path / "out", CropOptions(faces="cropped"))


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
    path, listed = index_crops(rgb, embedded.root / "json", "Mine", ratios=RATIOS, seed=1)
    assert path.name == "Mine.json"
    assert len(listed) == 20
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


def test_command_from_videos_to_a_checked_dataset(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = tmp_path / "detector.yaml"
    folders = {key: str(tmp_path / key) for key in ("rgb_dir", "lmdb_dir", "dataset_json_folder")}
    yaml.write_text(json.dumps({**folders, "label_dict": {"Mine_Real": 0, "Mine_Fake": 1}}))
    where = ["--host", str(EMBEDDED), "--detector_config", str(yaml)]
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
    assert main(crop) == 0
    assert "48 crops of 12 videos; 0 frames without a face" in capsys.readouterr().out
    assert main(["prepare", "index", "Mine", "--ratios", "0.5", "0.25", "0.25", *where]) == 0
    assert "train 3 real, 3 fake" in capsys.readouterr().out
    assert main(["prepare", "lmdb", "Mine", *where]) == 0
    assert main(["check-data", "Mine", "--decode", "all", *where]) == 0
    assert "decoded 48 frames: 48 of 256x256" in capsys.readouterr().out
    for wrong in (
        ["prepare", "index", "Nobody", *where],
        ["prepare", "lmdb", "../x", *where],
        ["prepare", "bake"],
    ):
        assert main(wrong) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


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
