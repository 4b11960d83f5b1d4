"""The demo datasets: format, splits, and the same bytes from the same seed."""

import json

import cv2
import lmdb
import numpy as np
import pytest

from examples.demo import NAMES, SIZES, Size, build_demo
from examples.demo.build import _chunks

TINY = {name: Size(train=2, val=0, test=2, frames=2) for name in NAMES}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    build_demo(root / "lmdb", root / "json", seed=3, names=("DemoA", "DemoB"), sizes=TINY, processes=1)
    return root


def content(root, name):
    with lmdb.open(str(root / "lmdb" / f"{name}_lmdb"), readonly=True, lock=False) as env, env.begin() as t:
        return {key.decode(): bytes(value) for key, value in t.cursor()}


@pytest.mark.parametrize("name", ["DemoA", "DemoB"])
def test_index_and_lmdb_are_as_deepfakebench_keeps_them(built, name):
    index = json.loads((built / "json" / f"{name}.json").read_text())[name]
    stored = content(built, name)
    assert set(index) == {f"{name}_Real", f"{name}_Fake"}
    frames = []
    for group, splits in index.items():
        assert {split: len(videos) for split, videos in splits.items()} == {"train": 2, "val": 0, "test": 2}
        for videos in splits.values():
            for video, entry in videos.items():
                assert entry["label"] == group
                kind = group.removeprefix(f"{name}_").lower()
                expected = [f"{name}\\{kind}\\frames\\{video}\\{t:03d}.png" for t in range(2)]
                assert entry["frames"] == expected
                frames += expected
    masks = {key for key in stored if "\\masks\\" in key}
    assert set(frames) == set(stored) - masks
    assert masks == {f.replace("\\frames\\", "\\masks\\") for f in frames if "\\fake\\" in f}
    for key in frames:
        image = cv2.imdecode(np.frombuffer(stored[key], np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape == (256, 256, 3)
    for key in masks:
        share = cv2.imdecode(np.frombuffer(stored[key], np.uint8), cv2.IMREAD_UNCHANGED).mean() / 255
        assert 0.01 < share < 0.6


def test_no_two_videos_share_a_name(built):
    index = json.loads((built / "json" / "DemoA.json").read_text())["DemoA"]
    names = [name for splits in index.values() for videos in splits.values() for name in videos]
    assert len(set(names)) == len(names) == 8


def test_same_seed_same_bytes_whatever_the_processes(built, tmp_path):
    build_demo(tmp_path / "lmdb", tmp_path / "json", seed=3, names=("DemoA",), sizes=TINY, processes=2)
    for relative in ("lmdb/DemoA_lmdb/data.mdb", "json/DemoA.json"):
        assert (tmp_path / relative).read_bytes() == (built / relative).read_bytes()


def test_another_seed_makes_other_people(built, tmp_path):
    build_demo(tmp_path / "lmdb", tmp_path / "json", seed=4, names=("DemoA",), sizes=TINY, processes=1)
    assert not set(content(tmp_path, "DemoA").values()) & set(content(built, "DemoA").values())


def test_a_forgery_changes_the_face_only_where_its_mask_says():
    from examples.demo.attributes import draw_camera, draw_identity, draw_scene
    from examples.demo.clip import capture, record
    from examples.demo.forge import FORGERS, Footage

    footage = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        clip = record(draw_identity(rng), draw_scene(rng), 1, rng)
        camera = draw_camera(rng)
        footage.append(Footage(np.stack([capture(f, camera, rng) for f in clip.frames]), clip.landmarks))
    for family, forge in FORGERS.items():
        ((edited, mask),) = forge(footage[0], footage[1], np.random.default_rng(0))
        change = np.abs(edited - footage[0].frames[0]).max(-1)
        assert change[mask > 0.5].mean() > 0.01, family
        # Laplacian blending reaches a few pixels beyond the mask, and no further.
        near = cv2.dilate(mask, np.ones((41, 41)))
        assert change[near < 1e-3].max() < 0.02, family


def test_splits_share_no_person():
    chunks = _chunks("DemoB", SIZES["DemoB"], 1)
    people = {split: set() for split in ("train", "val", "test")}
    for chunk in chunks:
        assert chunk.last - chunk.first >= 2
        people[chunk.split] |= set(range(chunk.first, chunk.last))
    assert sum(map(len, people.values())) == len(set().union(*people.values())) == 216


def test_a_single_pair_has_no_face_to_borrow(tmp_path):
    with pytest.raises(ValueError, match="another face"):
        build_demo(tmp_path, tmp_path, names=("DemoA",), sizes={"DemoA": Size(1, 0, 2)}, processes=1)
