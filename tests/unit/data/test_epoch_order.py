"""Which frames an epoch takes: numbers against the rule in words, and draws that no one frame escapes."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.data.collect import FrameRow
from effort_finetune.data.epoch_order import plan
from effort_finetune.data.hard_examples import HardExamples
from effort_finetune.data.loader import EpochSampler


def rows(**sizes: int) -> list[FrameRow]:
    """Frames of groups named ``<dataset>_real`` or ``<dataset>_fake<generator>``."""
    made = []
    for name, size in sizes.items():
        dataset, _, group = name.partition("_")
        fake = int(group.startswith("fake"))
        made += [
            FrameRow(dataset, f"{name}/{i}", fake, fake, group, f"{name}/{i}", "train") for i in range(size)
        ]
    return made


def drawn(listed: list[FrameRow], **settings: Any) -> dict[str, int]:
    return {unit.name: unit.drawn for unit in plan(listed, Settings(**settings))}


LISTED = rows(A_real=90, A_fake1=10, A_fake2=20, B_real=30, B_fake1=50)


def test_classes_come_equally_often():
    found = drawn(LISTED, balance="oversample")
    assert found == {"A: real": 75, "B: real": 25, "A: fake1": 13, "A: fake2": 25, "B: fake1": 62}
    assert sum(found.values()) == len(LISTED)


def test_label_groups_come_equally_often_within_their_class_or_by_weight():
    found = drawn(LISTED, balance="group")
    assert found["A: real"] + found["B: real"] == 100
    assert found["A: fake2"] == 50
    assert found["A: fake1"] + found["B: fake1"] == 50
    weighed = drawn(LISTED, balance="group", group_weights={"fake2": 3})
    assert weighed["A: fake2"] == 75
    assert "A: fake2" not in drawn(LISTED, balance="group", group_weights={"fake2": 0})


def test_datasets_come_equally_often_and_their_classes():
    found = drawn(LISTED, balance="dataset", group_weights={"A": 3})
    assert found["A: real"] == 75
    assert found["A: fake1"] + found["A: fake2"] == 75
    assert found["B: real"] == found["B: fake1"] == 25


def test_a_quota_is_a_number_of_frames():
    found = drawn(LISTED, group_quotas={"A": 12, "fake1": 4})
    assert found["A: real"] == 9
    assert found["A: fake1"] + found["B: fake1"] == 4  # the later name decides where both mean a group
    assert found["B: real"] == 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"balance": "group", "group_weights": {"fake3": 2}},
            "group_weights; got fake3; .*did you mean 'fake2' or 'fake1'",
        ),
        ({"group_quotas": {"C": 2}}, "group_quotas; got C; expected one of A, B, fake1"),
        ({"balance": "oversample", "group_weights": {"A": 2}}, "expected group or dataset"),
        ({"balance": "dataset", "group_weights": {"A": 0, "B": 0}}, "at least one above 0"),
    ],
)
def test_what_is_not_there_is_refused_by_name(settings, message):
    with pytest.raises(UserError, match=message):
        drawn(LISTED, **settings)


@given(
    st.lists(st.integers(1, 40), min_size=5, max_size=5),
    st.sampled_from(["oversample", "group", "dataset"]),
    st.integers(0, 3),
)
def test_an_epoch_has_as_many_frames_as_there_are_and_repeats_none_before_the_others_came(
    sizes, balance, epoch
):
    listed = rows(**dict(zip(("A_real", "A_fake1", "A_fake2", "B_real", "B_fake1"), sizes, strict=True)))
    units = plan(listed, Settings(balance=balance))
    assert sum(unit.drawn for unit in units) == len(listed)
    dataset = SimpleNamespace(rows=listed, set_epoch=lambda seed, epoch: None, __len__=lambda: len(listed))
    sampler = EpochSampler(_Sized(dataset, len(listed)), seed=1, units=units)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler) == len(listed)
    times = Counter(order)
    for unit in units:
        counts = [times[position] for position in unit.rows.tolist()]
        assert sum(counts) == unit.drawn
        assert max(counts) - min(counts) <= 1
    sampler.set_epoch(epoch)
    assert list(sampler) == order


class _Sized:
    def __init__(self, inner: Any, size: int) -> None:
        self.inner, self.size = inner, size

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, seed: int, epoch: int) -> None:
        self.inner.set_epoch(seed, epoch)


def test_hard_frames_come_by_their_loss():
    hard = HardExamples(100, 0.5)
    draws = torch.Generator().manual_seed(0)
    order = torch.randperm(100, generator=draws)
    assert torch.equal(hard.mixed_in(order, draws), order)  # nothing is known of the first epoch
    hard.note(torch.arange(90), torch.where(torch.arange(90) < 10, 10.0, 0.01))
    assert torch.equal(hard.mixed_in(order, draws), order)  # nor may what is learned within it move it
    hard.epoch_done()
    times = torch.zeros(100)
    for _ in range(200):
        mixed = hard.mixed_in(order, draws)
        assert len(mixed) == 100
        times += torch.bincount(mixed, minlength=100)
    first = torch.zeros(100).index_fill_(0, order[:50], 1)
    assert (times[:10] / 200 > 0.9 + first[:10]).all()  # once drawn, beside what the shuffled half has of it
    assert (times[90:] / 200 == first[90:]).all()  # never seen: never drawn
    again = HardExamples(100, 0.5)
    again.load_state_dict(hard.state_dict())
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(again.mixed_in(order, one), hard.mixed_in(order, two))
