"""The dataset class: which frames it lists and what an item holds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from .conftest import crop


@pytest.fixture
def open_dataset(bench):
    from dataset import DeepfakeAbstractBaseDataset

    return lambda mode="test", **changes: DeepfakeAbstractBaseDataset(bench.config(**changes), mode)


def test_rows_of_each_split(bench, open_dataset):
    bench.add("DemoA")
    train, test = open_dataset("train"), open_dataset("test")
    assert len(train) == 2 * 3 * 2  # groups, videos, frames
    assert len(test) == 2 * 2 * 3
    assert set(test.data_dict["label"]) == {0, 1}


def test_frames_are_spread_over_the_video_in_numeric_order(bench, open_dataset):
    bench.add("DemoA", frames=12)
    dataset = open_dataset("test", frame_num={"train": 4, "test": 4})
    assert [path.rpartition("\\")[2] for path in dataset.data_dict["image"][:4]] == [
        "0.png",
        "3.png",
        "6.png",
        "9.png",
    ]


def test_compression_levels(bench, open_dataset):
    groups = {"FF-real": "FF-real", "FF-DF": "FF-DF"}
    bench.add("FF-DF", groups=groups, levels=("c23", "c40"), lmdb_name="FaceForensics++")
    for name, level in (("FF-DF", "c23"), ("FF-DF_c40", "c40")):
        dataset = open_dataset("test", test_dataset=name)
        assert all(f"\\{level}\\" in path for path in dataset.data_dict["image"])
        assert set(dataset.data_dict["label"]) == {0, 2}
        assert dataset[0][0].shape == (3, 32, 32)


@pytest.mark.parametrize("lmdb", [True, False])
def test_pixels(bench, open_dataset, lmdb):
    bench.add("DemoA", size=48, files=not lmdb)
    dataset = open_dataset("test", lmdb=lmdb)
    path = dataset.data_dict["image"][0]
    image = cv2.imdecode(np.frombuffer(crop(path, False, 48), np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (32, 32), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(dataset.load_rgb(path), expected)
    tensor = torch.from_numpy(expected.transpose(2, 0, 1)).float() / 255
    assert torch.equal(dataset[0][0], (tensor - 0.5) / 0.5)


def test_batch(bench, open_dataset):
    bench.add("DemoA")
    dataset = open_dataset("test")
    batch = dataset.collate_fn([dataset[0], dataset[6]])
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["label"].dtype == torch.int64
    assert batch["landmark"] is None
    assert batch["mask"] is None


def test_augmentation_follows_the_seed_and_is_for_training_only(bench, open_dataset):
    bench.add("DemoA")
    changes = {"use_data_augmentation": True, "data_aug": {"flip_prob": 0.5, "quality_lower": 40}}
    dataset = open_dataset("train", **changes)
    torch.manual_seed(0)
    first = [dataset[index][0] for index in range(8)]
    torch.manual_seed(0)
    assert all(torch.equal(dataset[index][0], image) for index, image in enumerate(first))
    plain = open_dataset("train")
    assert any(not torch.equal(plain[index][0], image) for index, image in enumerate(first))
    assert torch.equal(open_dataset("test", **changes)[0][0], open_dataset("test")[0][0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_dataset": "DemoX"}, "dataset 'DemoX' has no index"),
        ({"label_dict": {"DemoA_Real": 0}}, "label 'DemoA_Fake' of dataset 'DemoA' is not in label_dict"),
        ({"lmdb_dir": "/nowhere"}, "has no LMDB"),
    ],
)
def test_data_that_cannot_be_used_is_named(bench, open_dataset, changes, words):
    from config.loader import HostError

    bench.add("DemoA")
    with pytest.raises(HostError, match=words):
        open_dataset("test", **changes)


def test_a_frame_that_is_not_there_is_named_and_never_replaced(bench, open_dataset):
    from config.loader import HostError

    bench.add("DemoA")
    dataset = open_dataset("test")
    path = dataset.data_dict["image"][0]
    bench.delete("DemoA", path)
    with pytest.raises(HostError, match="is not in") as caught:
        dataset[0]
    assert path in str(caught.value)
