import json
import pickle
import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.core.interpolation import INTERPOLATIONS, OPENCV_FLAG
from effort_finetune.data import lmdb_pool
from effort_finetune.data.frames import LMDB_FIXES, UNIFORM_FIX, FrameDataset, Missing, open_frames
from effort_finetune.data.index import Video

from .conftest import EMBEDDED, Bench, pair_of_groups, video


def rows_by_video(dataset: FrameDataset) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for row in dataset.rows:
        grouped.setdefault(row.video, []).append(row.path)
    return grouped


def test_rows_are_sampled_evenly_in_order_whatever_the_index_order(bench: Bench) -> None:
    shuffled = [video("UADFV_Real", "0001", frames=12), video("UADFV_Fake", "0001", frames=3)]
    mixed = [
        Video(
            v.dataset,
            v.group,
            v.label_name,
            None,
            v.name,
            v.split,
            tuple(random.Random(1).sample(v.frames, len(v.frames))),
        )
        for v in shuffled
    ]
    bench.write(mixed)
    dataset = open_frames(bench.host, bench.settings(), split="test", names=["UADFV"])
    assert rows_by_video(dataset) == {
        "UADFV/UADFV_Real/0001": [shuffled[0].frames[i] for i in (0, 3, 6, 9)],
        "UADFV/UADFV_Fake/0001": list(shuffled[1].frames),
    }
    facts = dataset.protocol["datasets"]["UADFV"]
    assert (facts["frames_used"], facts["frames_listed"], facts["videos_shorter_than_asked"]) == (7, 15, 1)
    assert dataset.frames_asked == dataset.protocol["frames_asked"] == 4


def test_first_sampling_takes_the_hosts_frames_and_says_so(bench: Bench) -> None:
    bench.write([video("UADFV_Real", "0", frames=12)])
    dataset = open_frames(bench.host, bench.settings(frame_sampling="first"), split="test", names=["UADFV"])
    assert [row.path[-7:-4] for row in dataset.rows] == ["000", "001", "002", "003"]
    assert dataset.protocol["sampling"] == "first"
    assert UNIFORM_FIX not in dataset.protocol["fixes"]
    assert set(LMDB_FIXES) <= set(dataset.protocol["fixes"])


def test_labels_are_the_hosts(bench: Bench) -> None:
    videos = [
        video(group, "000_003", dataset="FaceForensics++", compression="c23")
        for group in ("FF-real", "FF-DF", "FF-F2F")
    ]
    bench.write(videos, name="FaceForensics++")
    dataset = open_frames(bench.host, bench.settings(), split="test", names=["FaceForensics++"])
    seen = {(row.label_name, row.class_id, row.label) for row in dataset.rows}
    assert seen == {("FF-real", 0, 0), ("FF-DF", 1, 1), ("FF-F2F", 2, 1)}
    # One folder name, three videos: the host's metric would merge them.
    assert set(rows_by_video(dataset)) == {
        f"FaceForensics++/{g}/c23/000_003" for g in ("FF-real", "FF-DF", "FF-F2F")
    }


def test_pixels_equal_the_hosts_test_path_to_the_bit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write([video("UADFV_Real", "0"), video("UADFV_Fake", "0")])
    settings = bench.settings(frame_num={"train": 6, "test": 6})
    dataset = open_frames(bench.host, settings, split="test", names=["UADFV"])

    class HostDataset(bench.host.dataset_class):  # type: ignore[misc,name-defined]
        def init_data_aug_method(self) -> None:
            """Real hosts build an augmentation for tests too, with arguments albumentations 2 refuses."""

    names = bench.host.dataset_class.__init__.__globals__
    if "dlib" in names:  # the fork builds a face detector that it never calls
        monkeypatch.setitem(names, "dlib", SimpleNamespace(get_frontal_face_detector=lambda: None))
    config = settings.to_dict() | {"test_dataset": "UADFV", "with_mask": False, "with_landmark": False}
    ours = [(dataset[index], dataset.load_rgb(index)) for index in range(len(dataset))]
    lmdb_pool.close_all()  # the host opens the environment itself, and lmdb 2 wants only one
    host = HostDataset(config, "test")
    by_path = dict(zip(host.data_dict["image"], range(len(host)), strict=True))
    assert len(ours) == len(by_path) == 12
    for index, (row, (item, pixels)) in enumerate(zip(dataset.rows, ours, strict=True)):
        theirs = host[by_path[row.path]]
        assert torch.equal(item["image"], theirs[0])
        assert (item["label"], item["index"]) == (theirs[1], index)
        assert np.array_equal(pixels, np.array(host.load_rgb(row.path)))


@pytest.mark.parametrize("way", INTERPOLATIONS)
def test_a_crop_is_resized_by_the_interpolation_that_was_asked_for(embedded: Bench, way: str) -> None:
    images = embedded.write([video("UADFV_Real", "0"), video("UADFV_Fake", "0")])
    settings = embedded.settings(interpolation=way, resolution=24)
    dataset = open_frames(embedded.host, settings, split="test", names=["UADFV"])
    crop = cv2.imdecode(np.frombuffer(images[dataset.rows[0].path], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    expected = cv2.resize(crop, (24, 24), interpolation=getattr(cv2, OPENCV_FLAG[way]))
    assert np.array_equal(dataset.load_rgb(0), expected)
    assert dataset.protocol["interpolation"] == OPENCV_FLAG[way]


def test_missing_frames_are_reported_and_never_replaced(bench: Bench) -> None:
    videos = [video("UADFV_Real", "0", frames=4), video("UADFV_Fake", "0", frames=4)]
    absent, spoilt = videos[0].frames[0], videos[1].frames[2]
    bench.write(videos, leave_out=[absent], spoil=[spoilt])
    dataset = open_frames(bench.host, bench.settings(), split="test", names=["UADFV"])
    items = [dataset[index] for index in range(len(dataset))]
    missing = {dataset.rows[i.index].path: i.reason for i in items if isinstance(i, Missing)}
    assert missing == {absent: "absent", spoilt: "undecodable"}
    assert dataset.load_rgb(0) is None


def test_opening_leaves_the_global_generators_alone(bench: Bench) -> None:
    bench.write(pair_of_groups())
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    open_frames(bench.host, bench.settings(), split="train", names=["UADFV"])
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_val_is_read_though_hosts_know_train_and_test_only(bench: Bench) -> None:
    bench.write(pair_of_groups())
    dataset = open_frames(bench.host, bench.settings(), split="val", names=["UADFV"])
    assert len(rows_by_video(dataset)) == 4
    assert all("val_" in row.path and row.split == "val" for row in dataset.rows)


def test_several_training_sets_each_read_their_own_lmdb(bench: Bench) -> None:
    other = [video(group, "7", "train", dataset="Other") for group in ("UADFV_Real", "UADFV_Fake")]
    images = bench.write(pair_of_groups()) | bench.write(other, name="Other")
    dataset = open_frames(bench.host, bench.settings(), split="train", names=["UADFV", "Other"])
    assert Counter(row.dataset for row in dataset.rows) == {"UADFV": 16, "Other": 8}
    assert not any(isinstance(dataset[index], Missing) for index in range(len(dataset)))
    assert len({row.path for row in dataset.rows} & set(images)) == 24


@pytest.mark.parametrize("level", ["c23", "c40"])
def test_the_family_shares_one_lmdb_and_the_compression_is_chosen(bench: Bench, level: str) -> None:
    def videos(dataset: str, groups: list[str]) -> list[Video]:
        return [video(g, "1", dataset=dataset, compression=c) for g in groups for c in ("c23", "c40")]

    both = videos("FaceForensics++", ["FF-real", "FF-DF"])
    bench.write(both, name="FaceForensics++")
    bench.write([both[0], both[1]], name="FF-DF", lmdb_name="unused")
    settings = bench.settings(compression=level)
    dataset = open_frames(bench.host, settings, split="test", names=["FaceForensics++", "FF-DF"])
    assert {row.video for row in dataset.rows} == {
        f"FaceForensics++/FF-real/{level}/1",
        f"FaceForensics++/FF-DF/{level}/1",
        f"FF-DF/FF-real/{level}/1",
    }
    assert not isinstance(dataset[len(dataset) - 1], Missing)


def test_c40_suffix_selects_c40_from_the_one_index(bench: Bench) -> None:
    videos = [
        video(g, "1", dataset="FF-DF", compression=c) for g in ("FF-real", "FF-DF") for c in ("c23", "c40")
    ]
    bench.write(videos, name="FF-DF", lmdb_name="FaceForensics++")
    dataset = open_frames(bench.host, bench.settings(), split="test", names=["FF-DF_c40"])
    assert {row.video for row in dataset.rows} == {"FF-DF_c40/FF-real/c40/1", "FF-DF_c40/FF-DF/c40/1"}
    assert not isinstance(dataset[0], Missing)


def test_videos_without_frames_and_groups_without_the_split_are_counted_and_named(bench: Bench) -> None:
    bench.write([video("UADFV_Real", "0"), video("UADFV_Fake", "0"), video("UADFV_Fake", "1", frames=0)])
    path = bench.root / "json" / "UADFV.json"
    content = json.loads(path.read_text())
    content["UADFV"]["FF-DF"] = {"train": {}}
    path.write_text(json.dumps(content))
    dataset = open_frames(bench.host, bench.settings(), split="test", names=["UADFV"])
    assert set(rows_by_video(dataset)) == {"UADFV/UADFV_Real/0", "UADFV/UADFV_Fake/0"}
    facts = dataset.protocol["datasets"]["UADFV"]
    assert (facts["videos_listed"], facts["videos"], facts["videos_without_frames"]) == (3, 2, 1)
    assert facts["groups_without_split"] == ["FF-DF"]
    assert facts["warnings"] == [
        "1 of 3 test videos list no frame of their own and are left out: UADFV/UADFV_Fake/1",
        "1 label group has no test split: FF-DF",
    ]
    # The host's class reads the first frame of each video and the split of each group.
    embedded = bench.host.root == EMBEDDED
    verdict = facts["host_listing"]
    assert verdict == "equal" if embedded else verdict.startswith("not comparable: ")


def test_a_frame_that_is_listed_again_is_one_sample(bench: Bench) -> None:
    first = video("UADFV_Real", "0", frames=3)
    twice = replace(first, frames=(*first.frames, first.frames[1]))
    second = replace(first, name="1", frames=(first.frames[2], "UADFV\\UADFV_Real\\frames\\other\\000.png"))
    third = replace(first, name="2", frames=first.frames[:1])
    bench.write([twice, second, third])
    dataset = open_frames(bench.host, bench.settings(), split="test", names=["UADFV"])
    assert rows_by_video(dataset) == {
        "UADFV/UADFV_Real/0": list(first.frames),
        "UADFV/UADFV_Real/1": [second.frames[1]],
    }
    facts = dataset.protocol["datasets"]["UADFV"]
    assert (facts["frames_listed"], facts["frames_listed_again"], facts["videos_listed"]) == (4, 3, 3)
    assert "UADFV/UADFV_Real/2" in facts["warnings"][0]
    assert facts["warnings"][1].startswith("3 test entries repeat a frame")
    # A host takes every entry for a sample; as frames the two lists are the same.
    assert facts["host_listing"] == "equal"


def test_a_frame_of_both_classes_is_refused(bench: Bench) -> None:
    real = video("UADFV_Real", "0", frames=2)
    bench.write([real, replace(video("UADFV_Fake", "0"), frames=real.frames)])
    with pytest.raises(UserError, match="listed as real and as fake"):
        open_frames(bench.host, bench.settings(), split="test", names=["UADFV"])


def test_protocol_is_plain_json_and_names_shared_videos(bench: Bench) -> None:
    everywhere = [
        Video("UADFV", v.group, v.group, None, v.name, split, v.frames)
        for v in (video("UADFV_Real", "0"), video("UADFV_Fake", "0"))
        for split in ("train", "val", "test")
    ]
    bench.write(everywhere)
    settings = bench.settings(use_data_augmentation=True)
    protocol = open_frames(bench.host, settings, split="test", names=["UADFV"]).protocol
    assert json.loads(json.dumps(protocol)) == protocol
    shared = {"videos": 2, "frames": 12}
    assert protocol["datasets"]["UADFV"]["also_in"] == {"train": shared, "val": shared}
    assert protocol["augmentation"] is None
    assert open_frames(bench.host, settings, split="train", names=["UADFV"]).protocol["augmentation"]


def test_the_dataset_is_picklable_after_reading(bench: Bench) -> None:
    bench.write(pair_of_groups())
    dataset = open_frames(
        bench.host, bench.settings(use_data_augmentation=True), split="train", names=["UADFV"]
    )
    before = dataset[3]["image"]
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3]["image"], before)


def test_a_name_twice_and_no_name_are_refused(embedded: Bench) -> None:
    for names in (["UADFV", "UADFV"], []):
        with pytest.raises(UserError, match="datasets of the test split"):
            open_frames(embedded.host, embedded.settings(), split="test", names=names)
