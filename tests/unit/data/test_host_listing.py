"""Rows from the index against those of the host's own dataset class, embedded and real."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.data import host_listing as room
from effort_finetune.data.check import check_dataset
from effort_finetune.data.collect import collect_rows
from effort_finetune.data.frames import open_frames
from effort_finetune.data.index import load_index

from .conftest import Bench, pair_of_groups, video


def verdict(bench: Bench, name: str = "UADFV", split: str = "test", **flags: Any) -> str:
    settings = bench.settings(**flags)
    dataset = open_frames(bench.host, settings, split=split, names=[name])
    return dataset.protocol["datasets"][name]["host_listing"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_are_the_hosts(bench: Bench, split: str) -> None:
    videos = [video(v.group, v.name, v.split, frames=3 + int(v.name) * 4) for v in pair_of_groups(3)]
    shuffled = [replace(v, frames=tuple(random.Random(v.id).sample(v.frames, len(v.frames)))) for v in videos]
    text = (bench.host.root / "training/dataset/abstract_dataset.py").read_text()
    sorts = "sorted(frame_paths" in text or bench.host.embedded
    bench.write(shuffled if sorts else videos)  # the Effort fork and its kin take frames as they are listed
    settings = bench.settings()
    index = load_index(bench.host, settings, "UADFV")
    theirs = sorted(room.host_listing(bench.host, settings, index, split=split, asked=4))
    rows = collect_rows(settings, index, split=split, asked=4, sampling="first").rows
    assert theirs == sorted((row.path.replace("\\", "/"), row.class_id) for row in rows)
    assert len(rows) == 2 * (3 + 4 + 4)
    assert verdict(bench, split=split) == verdict(bench, split=split, frame_sampling="first") == "equal"


@pytest.mark.parametrize("level", ["c23", "c40", "raw"])
def test_rows_of_one_compression_are_the_hosts(bench: Bench, level: str) -> None:
    bench.write(
        [
            video(group, "000_003", dataset="FaceForensics++", compression=compression, frames=9)
            for group in ("FF-real", "FF-DF", "FF-F2F")
            for compression in ("raw", "c23", "c40")
        ],
        name="FaceForensics++",
    )
    assert verdict(bench, "FaceForensics++", compression=level) == "equal"


def test_listing_touches_neither_generators_nor_the_terminal(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write(pair_of_groups())
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
    assert verdict(bench) == "equal"
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
    assert before == after
    assert capsys.readouterr() == ("", "")


def test_the_answer_is_kept_until_class_or_index_change(
    embedded: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = room.host_listing

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options["split"])
        return original(*args, **options)

    monkeypatch.setattr(room, "host_listing", counted)
    embedded.write(pair_of_groups())
    assert [verdict(embedded) for _ in range(2)] == ["equal", "equal"]
    assert calls == ["test"]
    assert verdict(embedded, split="val") == verdict(embedded, frame_num={"train": 4, "test": 5}) == "equal"
    assert calls == ["test", "val", "test"]
    embedded.write(pair_of_groups(3))
    assert verdict(embedded) == "equal"
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        (lambda self, name: (["a/0.png"], [1], ["v"], ["a fourth list"]), "differs by 17 rows"),
        (
            lambda self, name: (_ for _ in ()).throw(KeyError("label_dict")),
            "not comparable: KeyError: 'label_dict'",
        ),
        (lambda self, name: self.no_such_attribute, "not comparable: AttributeError: "),
        (lambda self, name: 1 // 0, "not comparable: ZeroDivisionError: "),
    ],
)
def test_what_a_host_lists_instead(
    embedded: Bench, monkeypatch: pytest.MonkeyPatch, listing: Any, expected: str
) -> None:
    embedded.write(pair_of_groups())
    host_class = type("Changed", (), {"collect_img_and_label_for_one_dataset": listing})
    monkeypatch.setattr(type(embedded.host), "dataset_class", host_class)
    assert verdict(embedded).startswith(expected)


def test_a_class_that_does_not_import_is_no_reason_to_stop(
    embedded: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any) -> None:
        raise UserError("the host's dataset.abstract_dataset module needs the package 'torchvision'")

    embedded.write(pair_of_groups())
    monkeypatch.setattr(type(embedded.host), "dataset_class", property(fails))
    assert verdict(embedded).startswith("not comparable: the host's dataset.abstract_dataset module needs")
    report = check_dataset(embedded.host, embedded.settings(), "UADFV")
    assert report.ok
    assert set(report.host_listing) == {"train", "val", "test"}
