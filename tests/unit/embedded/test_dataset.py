"""The dataset class: which frames, which labels, which pixels."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch

from .conftest import crop, write_files


@pytest.fixture
def open_dataset(bench):
    from dataset.abstract_dataset import DeepfakeAbstractBaseDataset

    def open_dataset(mode="test", **changes):
        return DeepfakeAbstractBaseDataset(bench.config(**changes), mode)

    return open_dataset


def test_rows_of_each_split(bench, open_dataset):
    bench.add("DemoA", splits={"train": 3, "val": 2, "test": 1}, frames=4)
    train, val, test = (open_dataset(mode) for mode in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (3 * 2 * 2, 2 * 2 * 2, 1 * 2 * 3)
    assert test.data_dict["label"] == [0, 0, 0, 1, 1, 1]
    assert test.data_dict["image"][0] == r"DemoA\DemoA_Real\frames\test00\0.png"
    assert test.video_name_list[0] == "DemoA/DemoA_Real/test00"
    assert len(set(val.video_name_list)) == 4
    assert not set(train.data_dict["image"]) & set(test.data_dict["image"])


def test_frames_are_spread_over_the_video_in_numeric_order(bench, open_dataset):
    bench.add("DemoA", splits={"test": 1}, frames=12)

    def stems(dataset):
        return [int(path.rpartition("\\")[2].removesuffix(".png")) for path in dataset.data_dict["image"][:4]]

    assert stems(open_dataset(frame_num={"test": 4})) == [0, 3, 6, 9]
    assert stems(open_dataset(frame_num={"test": 4}, frame_sampling="first")) == [0, 1, 2, 3]
    assert len(open_dataset(frame_num={"test": 99})) == 24
    assert len(open_dataset(frame_num=None)) == 24


@pytest.mark.parametrize(("total", "count"), [(32, 8), (10, 7), (5, 5), (7, 1), (300, 32)])
def test_sampling_is_even(total, count):
    from dataset.index import sample_frames

    chosen = [int(frame) for frame in sample_frames([str(i) for i in range(total)], count)]
    gaps = np.diff([*chosen, total])
    assert len(set(chosen)) == count
    assert chosen[0] == 0
    assert gaps.max() - gaps.min() <= 1


def test_compression_levels(bench, open_dataset):
    groups = {"FF-real": "FF-real", "FF-DF": "FF-DF"}
    bench.add(
        "FF-DF",
        groups=groups,
        splits={"test": 1},
        levels=("c23", "c40"),
        lmdb_name="FaceForensics++",
        frames=2,
    )
    c23, c40 = open_dataset(test_dataset="FF-DF"), open_dataset(test_dataset="FF-DF_c40")
    assert c23.data_dict["image"][0] == r"FF-DF\FF-real\c23\frames\test00\0.png"
    assert c40.data_dict["image"][0] == r"FF-DF\FF-real\c40\frames\test00\0.png"
    assert c40.video_name_list[0] == "FF-DF/FF-real/c40/test00"
    assert c23.data_dict["label"] == [0, 0, 2, 2]
    assert open_dataset(test_dataset="FF-DF", compression="c40").data_dict == c40.data_dict
    assert not torch.equal(c23[0][0], c40[0][0])
    with pytest.raises(Exception, match="has no compression 'raw'"):
        open_dataset(test_dataset="FF-DF", compression="raw")


def test_pixels(bench, open_dataset):
    bench.add("DemoA", size=64)
    dataset = open_dataset(resolution=32, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    path = dataset.data_dict["image"][4]
    stored = cv2.imdecode(np.frombuffer(crop(path, "Fake" in path, 64), np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.resize(stored, (32, 32), interpolation=cv2.INTER_CUBIC)[..., ::-1]
    assert np.array_equal(dataset.load_rgb(path), expected)
    normal = (expected / 255.0 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    image, _, landmark, mask = dataset[4]
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image.numpy(), normal.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)
    assert landmark is mask is None


def test_batch(bench, open_dataset):
    bench.add("DemoA")
    dataset = open_dataset()
    batch = dataset.collate_fn([dataset[0], dataset[len(dataset) - 1]])
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["label"].tolist() == [0, 1]
    assert batch["label"].dtype == torch.int64
    assert batch["landmark"] is batch["mask"] is None


@pytest.mark.parametrize("lmdb", [True, False])
def test_landmarks_and_masks(bench, open_dataset, lmdb):
    bench.add("DemoA", frames=1, files=not lmdb)
    points = np.arange(162, dtype=np.uint32).reshape(81, 2)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16] = 255
    extra = {}
    for row in open_dataset(lmdb=lmdb).data_dict["image"]:
        extra[row.replace("frames", "landmarks").replace(".png", ".npy")] = points.tobytes()
        if "Fake" in row:
            extra[row.replace("frames", "masks")] = cv2.imencode(".png", mask)[1].tobytes()
    bench.add_lmdb("DemoA", extra) if lmdb else write_files(bench.root / "rgb", extra)

    dataset = open_dataset(lmdb=lmdb, with_landmark=True, with_mask=True, resolution=64)
    batch = dataset.collate_fn([dataset[0], dataset[len(dataset) - 1]])
    assert batch["landmark"].shape == (2, 81, 2)
    # Stored for crops of 256 pixels.
    assert batch["landmark"][0, 80].tolist() == [160 / 4, 161 / 4]
    assert batch["mask"].shape == (2, 64, 64, 1)
    assert batch["mask"][0].max() == 0
    assert batch["mask"][1, 24].min() == 1


def test_a_fake_without_its_mask_is_an_error(bench, open_dataset):
    bench.add("DemoA")
    dataset = open_dataset(with_mask=True)
    assert dataset[0][3].max() == 0
    with pytest.raises(Exception, match="masks"):
        dataset[len(dataset) - 1]


def test_several_datasets_read_their_own_lmdb(bench, open_dataset):
    bench.add("DemoA")
    bench.add("DemoB")
    dataset = open_dataset("train", train_dataset=["DemoA", "DemoB"])
    assert {path.partition("\\")[0] for path in dataset.data_dict["image"]} == {"DemoA", "DemoB"}
    assert all(torch.isfinite(dataset[i][0]).all() for i in range(len(dataset)))


def test_pickle(bench, open_dataset):
    bench.add("DemoA")
    dataset = open_dataset("train", use_data_augmentation=True, data_aug={"flip_prob": 0.5})
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.data_dict == dataset.data_dict
    assert copy[0][0].shape == (3, 32, 32)


class TestUserErrors:
    """Each says what is wrong in one line, and is a DatasetError, which ends a command with code 2."""

    @pytest.fixture(autouse=True)
    def data(self, bench):
        bench.add("DemoA")
        bench.add("DemoB")

    @pytest.fixture
    def message(self, open_dataset):
        from dataset.errors import DatasetError

        def message(mode="test", **changes):
            with pytest.raises(DatasetError) as caught:
                open_dataset(mode, **changes)
            assert caught.value.exit_code == 2
            assert "\n" not in str(caught.value)
            return str(caught.value)

        return message

    def test_unknown_dataset(self, message):
        text = message(test_dataset="DemoX")
        assert "dataset 'DemoX' has no index" in text
        assert "did you mean 'DemoB' or 'DemoA'?" in text

    def test_no_index_folder(self, message, tmp_path):
        assert "does not exist" in message(dataset_json_folder=str(tmp_path / "nowhere"))

    @pytest.mark.parametrize("content", ["{", "[]", '{"Other": {}}'])
    def test_no_index(self, message, bench, content):
        (bench.root / "dataset_json" / "DemoA.json").write_text(content)
        assert "dataset 'DemoA'" in message()

    @pytest.mark.parametrize("groups", [{"DemoA_Real": []}, {"DemoA_Real": {"test": {"v": {"frames": []}}}}])
    def test_malformed_index(self, message, bench, groups):
        bench.write_index("DemoA", groups)
        assert "dataset 'DemoA', group 'DemoA_Real'" in message()

    def test_no_lmdb(self, message, bench):
        (bench.root / "lmdb" / "DemoA_lmdb" / "data.mdb").unlink()
        assert "dataset 'DemoA' has no LMDB" in message()

    def test_unknown_label(self, message, bench):
        labels = {"DemoA_Real": 0, "DemoA_Fakes": 1}
        text = message(label_dict=labels)
        assert "label 'DemoA_Fake' of dataset 'DemoA' (video 'test00') is not in label_dict" in text
        assert "did you mean 'DemoA_Fakes'" in text

    def test_empty_split(self, message, bench):
        index = bench.index("DemoA")
        for splits in index.values():
            splits["test"] = {}
        bench.write_index("DemoA", index)
        assert "dataset 'DemoA' has no frames in its 'test' split" in message()

    def test_settings(self, message):
        assert "mode is 'eval'" in message("eval")
        assert "test_dataset names no dataset" in message(test_dataset=[])
        assert "frame_sampling is 'random'" in message(frame_sampling="random")
        assert message(test_dataset=["DemoA", "DemoA"]) == "dataset 'DemoA' is named twice"
        assert "frame_num is 0" in message(frame_num={"test": 0})
