import multiprocessing

import pytest
import torch

from effort_finetune.data import lmdb_pool
from effort_finetune.data.frames import FrameDataset, open_frames
from effort_finetune.data.loader import START_METHOD, make_loader

from .conftest import Bench, pair_of_groups, video


def passes(dataset: FrameDataset, epochs: int = 1, **options: object) -> list[list[dict[str, object]]]:
    loader = make_loader(dataset, batch_size=5, **options)  # type: ignore[arg-type]
    return [list(loader) for _ in range(epochs)]


def order(batches: list[dict[str, torch.Tensor]]) -> list[int]:
    return torch.cat([batch["index"] for batch in batches]).tolist()


@pytest.fixture
def train_set(embedded: Bench) -> FrameDataset:
    embedded.write(pair_of_groups())
    settings = embedded.settings(use_data_augmentation=True)
    return open_frames(embedded.host, settings, split="train", names=["UADFV"])


def test_batch_has_what_a_host_reads_and_what_we_add(train_set: FrameDataset) -> None:
    batch = next(iter(make_loader(train_set, batch_size=5, workers=0)))
    assert batch["image"].shape == (5, 3, 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["label"].dtype == batch["index"].dtype == batch["missing"].dtype == torch.int64
    assert batch["index"].tolist() == [0, 1, 2, 3, 4]
    assert batch["label"].tolist() == [row.label for row in train_set.rows[:5]]
    assert batch["landmark"] is batch["mask"] is None
    assert batch["missing"].shape == (0,)


def test_every_frame_once_and_the_last_batch_kept(train_set: FrameDataset) -> None:
    for shuffle in (False, True):
        (batches,) = passes(train_set, workers=0, shuffle=shuffle)
        assert sorted(order(batches)) == list(range(16))
        assert (order(batches) != list(range(16))) == shuffle
    assert len(make_loader(train_set, batch_size=5, workers=0, drop_last=True)) == 3


def test_order_and_pixels_do_not_depend_on_the_number_of_workers(train_set: FrameDataset) -> None:
    runs = [passes(train_set, 2, workers=workers, shuffle=True, seed=7) for workers in (0, 1, 2)]
    assert order(runs[0][0]) != order(runs[0][1])
    for run in runs[1:]:
        for ours, theirs in zip(runs[0], run, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert torch.equal(a["index"], b["index"])
                assert torch.equal(a["image"], b["image"])


def test_epochs_and_seeds_differ_and_a_resumed_epoch_is_the_same(train_set: FrameDataset) -> None:
    first, second = passes(train_set, 2, workers=0, shuffle=False, seed=7)
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    (other,) = passes(train_set, workers=0, shuffle=False, seed=8)
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))
    loader = make_loader(train_set, batch_size=5, workers=2, seed=7)
    loader.sampler.set_epoch(1)
    for a, b in zip(second, loader, strict=True):
        assert torch.equal(a["image"], b["image"])


def test_missing_frames_are_listed_by_row(embedded: Bench) -> None:
    videos = [video("UADFV_Real", "0", frames=4), video("UADFV_Fake", "0", frames=4)]
    gone = [*videos[0].frames[:3], videos[1].frames[3]]
    embedded.write(videos, leave_out=gone)
    dataset = open_frames(embedded.host, embedded.settings(), split="test", names=["UADFV"])
    batches = list(make_loader(dataset, batch_size=3, workers=2))
    assert [batch["missing"].tolist() for batch in batches] == [[0, 1, 2], [], [7]]
    assert [batch["index"].tolist() for batch in batches] == [[], [3, 4, 5], [6]]
    assert batches[0]["image"].shape[0] == 0


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_train_set_equal_to_test_set_with_any_start_method(
    embedded: Bench, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(START_METHOD, method)
    embedded.write(pair_of_groups(1))
    test = open_frames(embedded.host, embedded.settings(), split="test", names=["UADFV"])
    again = open_frames(embedded.host, embedded.settings(), split="test", names=["UADFV"])
    before = test[0]["image"]  # the environment is open in this process when the workers start
    loaders = [make_loader(d, batch_size=5, workers=1) for d in (test, again)]
    assert loaders[0].multiprocessing_context.get_start_method() == method
    for a, b in zip(*loaders, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert a["missing"].tolist() == []
        assert torch.equal(test[0]["image"], before)  # read here while the workers read


def test_one_environment_per_path_and_none_across_a_fork(embedded: Bench) -> None:
    lmdb_pool.close_all()
    names = ["FaceForensics++", "FF-DF"]
    videos = [video(g, "1", dataset="FF", compression="c23") for g in ("FF-real", "FF-DF")]
    embedded.write(videos, name=names[0])
    embedded.write(videos, name=names[1], lmdb_name=names[0])
    dataset = open_frames(embedded.host, embedded.settings(), split="test", names=names)
    for index in range(len(dataset)):
        dataset[index]
    assert len(lmdb_pool._environments) == 1
    if "fork" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("fork")
        with context.Pool(1) as pool:
            assert pool.apply(_open_environments) == 0
            assert pool.apply(_read, (dataset, 0)) == 1


def _open_environments() -> int:
    return len(lmdb_pool._environments)


def _read(dataset: FrameDataset, index: int) -> int:
    assert "image" in dataset[index]
    return len(lmdb_pool._environments)
