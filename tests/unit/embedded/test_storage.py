"""Reading crops: any slash, LMDB or files, before and after a fork, never another frame than asked for."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pytest
import torch
from torch.utils.data import DataLoader

VALUE = b"bytes of a crop"


@pytest.fixture
def make_dataset(bench):
    from dataset.abstract_dataset import DeepfakeAbstractBaseDataset

    return lambda mode, **changes: DeepfakeAbstractBaseDataset(bench.config(**changes), mode)


@pytest.mark.parametrize(
    "prefix", ["", "./datasets\\", "./datasets/", ".\\datasets\\rgb\\", "datasets/rgb/", "./"]
)
@pytest.mark.parametrize("slash", ["\\", "/"])
def test_lmdb_finds_a_frame_under_any_spelling(bench, prefix, slash):
    from dataset.storage import LmdbStore

    bench.add_lmdb("UADFV", {r"UADFV\real\frames\0\1.png": VALUE})
    store = LmdbStore([bench.root / "lmdb" / "UADFV_lmdb"])
    assert store.read(prefix + slash.join(["UADFV", "real", "frames", "0", "1.png"])) == VALUE


@pytest.mark.parametrize("prefix", ["", "./datasets\\", "./datasets/rgb/", "datasets\\rgb\\", "./"])
@pytest.mark.parametrize("slash", ["\\", "/"])
@pytest.mark.parametrize("rgb_dir", ["rgb", "datasets", "datasets/rgb"])
def test_files_are_found_under_any_spelling(tmp_path, prefix, slash, rgb_dir):
    from dataset.storage import FileStore

    if rgb_dir == "datasets" and "rgb" in prefix:
        file = tmp_path / "datasets/rgb/UADFV/real/1.png"
    else:
        file = tmp_path / rgb_dir / "UADFV/real/1.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(VALUE)
    assert (
        FileStore(tmp_path / rgb_dir, tmp_path).read(prefix + slash.join(["UADFV", "real", "1.png"])) == VALUE
    )


def test_files_by_absolute_path(tmp_path):
    from dataset.storage import FileStore

    (tmp_path / "1.png").write_bytes(VALUE)
    assert FileStore(tmp_path / "rgb", tmp_path / "root").read(str(tmp_path / "1.png")) == VALUE


def test_lmdb_folder_of_a_dataset(tmp_path):
    from dataset.errors import DatasetError
    from dataset.storage import lmdb_path

    def folder(name):
        path = tmp_path / name
        path.mkdir(parents=True)
        (path / "data.mdb").touch()
        return path

    shared, own = folder("FaceForensics++_lmdb"), folder("UADFV_lmdb")
    for name in ("FaceForensics++", "FF-DF", "FF-F2F", "FF-FS", "FF-NT", "DeepFakeDetection"):
        assert lmdb_path(tmp_path, name) == shared
    assert lmdb_path(tmp_path, "UADFV") == own
    assert lmdb_path(tmp_path, "DeepFakeDetection") == shared
    dfd = folder("DeepFakeDetection_lmdb")
    assert lmdb_path(tmp_path, "DeepFakeDetection") == dfd
    with pytest.raises(DatasetError, match="'roop' has no LMDB"):
        lmdb_path(tmp_path, "roop")


@pytest.mark.parametrize("lmdb_used", [True, False])
def test_a_missing_frame_is_named_and_never_replaced(bench, make_dataset, lmdb_used):
    from dataset.errors import MissingFrameError

    bench.add("DemoA", files=not lmdb_used)
    dataset = make_dataset("test", lmdb=lmdb_used)
    path = dataset.data_dict["image"][1]
    if lmdb_used:
        bench.delete("DemoA", path)
    else:
        bench.root.joinpath("rgb", *path.split("\\")).unlink()
    with pytest.raises(MissingFrameError) as caught:
        dataset[1]
    assert path in str(caught.value)
    assert dataset[0][0].shape == (3, 32, 32)


def test_a_missing_frame_is_named_by_a_worker_too(bench, make_dataset):
    from dataset.errors import MissingFrameError

    bench.add("DemoA")
    dataset = make_dataset("test")
    path = dataset.data_dict["image"][-1]
    bench.delete("DemoA", path)
    with pytest.raises(MissingFrameError) as caught:
        list(DataLoader(dataset, batch_size=4, num_workers=1, collate_fn=dataset.collate_fn))
    assert (
        str(caught.value)
        .strip()
        .splitlines()[-1]
        .startswith(f"dataset.errors.MissingFrameError: frame '{path}'")
    )


def test_bytes_that_are_no_image(bench, make_dataset):
    from dataset.errors import MissingFrameError

    bench.add("DemoA")
    dataset = make_dataset("test")
    bench.add_lmdb("DemoA", {dataset.data_dict["image"][0]: b"not a PNG"})
    with pytest.raises(MissingFrameError, match="not a readable image"):
        dataset[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork")
def test_train_set_as_test_set_with_workers_after_a_read_in_the_parent(bench, make_dataset):
    bench.add("DemoA")
    datasets = [make_dataset("train"), make_dataset("test"), make_dataset("train")]
    first = [dataset[0][0] for dataset in datasets]
    for _ in range(2):
        for dataset, image in zip(datasets, first, strict=True):
            loader = DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=dataset.collate_fn)
            batches = list(loader)
            assert sum(len(batch["label"]) for batch in batches) == len(dataset)
            assert torch.equal(batches[0]["image"][0], image)
            assert torch.equal(dataset[0][0], image)


def test_one_environment_per_path_opened_on_first_use(bench, make_dataset, monkeypatch):
    bench.add("DemoA")
    opened = []
    original = lmdb.open

    def counting(path, **options):
        opened.append(Path(path).name)
        return original(path, **options)

    monkeypatch.setattr(lmdb, "open", counting)
    train, test = make_dataset("train"), make_dataset("test")
    assert opened == []
    train[0], test[0], train[1]
    assert opened == ["DemoA_lmdb"]
