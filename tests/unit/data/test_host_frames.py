"""``loader: host``: the rows, pixels and batches of the host's own dataset class, without what it hides."""

from __future__ import annotations

import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toyhost import EMBEDDED

from effort_finetune.core.errors import UserError
from effort_finetune.data.frames import FrameDataset, Missing
from effort_finetune.data.host_frames import HostFrames, open_split
from effort_finetune.data.index import load_index
from effort_finetune.data.listed_rows import described, listed_part
from effort_finetune.data.loader import make_loader
from effort_finetune.host import open_host
from effort_finetune.host.dataset_file import find_dataset_class

from .conftest import Bench, pair_of_groups

CLASS = "training/dataset/abstract_dataset.py"


def opened(bench: Bench, loader: str, split: str = "test", **flags: Any) -> FrameDataset:
    settings = bench.settings(loader=loader, frame_sampling="first", **flags)
    return open_split(bench.host, settings, split=split, names=["UADFV"])


def edited(tmp_path: Path, *changes: tuple[str, str]) -> Bench:
    """The embedded host with a dataset class that somebody changed."""
    root = tmp_path / "fork"
    shutil.copytree(
        EMBEDDED / "training", root / "training", ignore=shutil.ignore_patterns("__pycache__", "logs")
    )
    text = (root / CLASS).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (root / CLASS).write_text(text)
    return Bench(open_host(root), tmp_path)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_and_pixels_are_those_of_our_loader_to_the_bit(bench: Bench, split: str) -> None:
    bench.write(pair_of_groups(3))
    ours, theirs = opened(bench, "plugin", split), opened(bench, "host", split)
    assert isinstance(theirs, HostFrames)
    assert [(r.path, r.label, r.class_id, r.video) for r in theirs.rows] == [
        (r.path, r.label, r.class_id, r.video) for r in ours.rows
    ]
    batches = [list(make_loader(d, batch_size=5, workers=0)) for d in (ours, theirs)]
    for our, their in zip(*batches, strict=True):
        assert torch.equal(our["image"], their["image"])
        assert torch.equal(our["label"], (their["label"] > 0).long())
        assert torch.equal(our["index"], their["index"])
        assert their["missing"].tolist() == []
    part = theirs.protocol["datasets"]["UADFV"]
    assert part["host_listing"] == "equal"
    assert part["videos"] == ours.protocol["datasets"]["UADFV"]["videos"]
    assert (theirs.protocol["loader"], theirs.protocol["sampling"]) == ("host", "the host's own")
    assert np.array_equal(theirs.load_rgb(0), ours.load_rgb(0))
    assert theirs.encoded(0) == ours.encoded(0)
    assert theirs.place(theirs.rows[0]) == ours.place(ours.rows[0])


def test_a_class_that_spreads_its_frames_evenly_is_held_to_that(bench: Bench) -> None:
    bench.write(pair_of_groups(3, frames=9))
    settings = bench.settings(loader="host", frame_sampling="uniform")
    frames = open_split(bench.host, settings, split="test", names=["UADFV"])
    assert frames.protocol["datasets"]["UADFV"]["host_listing"] == "equal"
    without = [row for row in frames.rows if not row.path.endswith("000.png")]
    index = load_index(bench.host, settings, "UADFV")
    listing = [(row.path, row.class_id) for row in without]
    part = listed_part(settings, index, listing, "test", 4)
    assert described(settings, index, part, "test", 4)["host_listing"] == "differs by 6 rows"


def test_workers_read_the_same_and_augment_by_seed_epoch_and_frame(embedded: Bench) -> None:
    embedded.write(pair_of_groups(3))
    frames = opened(embedded, "host", "train", use_data_augmentation=True)
    before = random.getstate(), torch.random.get_rng_state()

    def epoch(workers: int, number: int) -> list[torch.Tensor]:
        loader = make_loader(frames, batch_size=4, workers=workers, shuffle=True, seed=3)
        loader.sampler.set_epoch(number)
        return [batch["image"] for batch in loader]

    first = epoch(0, 1)
    assert random.getstate() == before[0]
    for other in (epoch(0, 1), epoch(2, 1)):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, epoch(0, 2), strict=True))


def test_a_worker_that_starts_anew_makes_its_own_object(bench: Bench) -> None:
    bench.write(pair_of_groups())
    frames = opened(bench, "host")
    again = pickle.loads(pickle.dumps(frames))
    items = [again.collate([d[3]])["image"] for d in (frames, again)]
    assert torch.equal(*items)


@pytest.mark.parametrize("caught", ["Exception", "BaseException"])
def test_a_frame_that_the_class_would_replace_is_missing(tmp_path: Path, caught: str) -> None:
    """Upstream's class returns item 0 for what it cannot read, under the other frame's name."""
    read = "        image = self.load_rgb(path)\n"
    careless = f"        try:\n    {read}        except {caught}:\n            return self[0]\n"
    bench = edited(tmp_path, (read, careless))
    spoilt = pair_of_groups()[8].frames[2]
    bench.write(pair_of_groups(), spoil=[spoilt])
    frames = opened(bench, "host")
    missing = [i for i in range(len(frames)) if isinstance(frames[i], Missing)]
    assert [frames.rows[i].path for i in missing] == [spoilt]
    assert len(frames) == 16
    batch = frames.collate([frames[i] for i in (0, *missing)])
    assert (batch["index"].tolist(), batch["missing"].tolist()) == ([0], missing)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("image = self.load_rgb(path)", "image = self.load_rgb(path)[:16]", r"shape \(3, 16, "),
        (
            "self.config, self.mode = config, mode",
            "self.own = config['no_such_key']",
            "KeyError: 'no_such_key'",
        ),
        ('"label": torch.tensor(labels)', '"label": self', "NameError"),
        (
            '"image": [path for paths, _, _ in listed for path in paths]',
            '"image": [[p] for s, _, _ in listed for p in s]',
            "clips",
        ),
        ("image = self.load_rgb(path)\n", "image = type(self).load_rgb(self, path)\n", "load_rgb, once each"),
    ],
)
def test_a_class_that_does_not_fit_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    bench = edited(tmp_path, (old, new))
    bench.write(pair_of_groups())
    with pytest.raises(UserError, match=words) as caught:
        opened(bench, "host")
    assert "loader: host" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(opened(bench, "plugin")) == 16


def test_another_name_more_attributes_and_a_fourth_list(tmp_path: Path) -> None:
    bench = edited(
        tmp_path,
        ("class DeepfakeAbstractBaseDataset", "class OurFrames"),
        ("return paths, labels, videos", "return paths, labels, videos, self.more"),
        ("for paths, _, _ in listed for path", "for paths, *_ in listed for path"),
        ("for _, labels, _ in listed for label", "for _, labels, *_ in listed for label"),
        ("self.config, self.mode = config, mode", "self.config, self.mode, self.more = config, mode, []"),
    )
    bench.write(pair_of_groups())
    assert find_dataset_class(bench.host.root / "training") == ("dataset.abstract_dataset", "OurFrames")
    frames = opened(bench, "host")
    assert frames.protocol["dataset_class"] == "OurFrames"
    assert frames.protocol["datasets"]["UADFV"]["host_listing"] == "equal"
    (bench.host.root / CLASS).unlink()
    with pytest.raises(UserError, match="the host has no dataset class"):
        opened(bench, "host")


def test_what_only_our_loader_does_is_refused(embedded: Bench, tmp_path: Path) -> None:
    embedded.write(pair_of_groups())
    for flags in ({"fit": "native"}, {"data_aug": {"extra": {"CLAHE": 0.1}}}):
        with pytest.raises(UserError, match="which the host's class does not read"):
            opened(embedded, "host", **flags)
