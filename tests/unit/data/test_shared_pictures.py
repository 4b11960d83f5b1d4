"""Pictures of the training split in other splits: what a naive comparison finds, looked at once."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.data.shared_pictures import TrainedPictures


class Split:
    """Stands for an opened split: rows, and bytes by place."""

    def __init__(self, pictures: list[tuple[str, bytes]], folders: set[str]) -> None:
        self.rows = [SimpleNamespace(dataset=name, path=str(n)) for n, (name, _) in enumerate(pictures)]
        self.data = [data for _, data in pictures]
        self.protocol = {"datasets": {n: {"folder": {}} if n in folders else {} for n, _ in pictures}}
        self.looks: Counter[str] = Counter()

    def stored_bytes(self, place: int) -> int:
        self.looks["size"] += 1
        return len(self.data[place])

    def encoded(self, place: int) -> bytes:
        self.looks["bytes"] += 1
        return self.data[place]


def naive(trained: Split, other: Split) -> set[str]:
    found = set()
    for row, data in zip(other.rows, other.data, strict=True):
        for mate, there in zip(trained.rows, trained.data, strict=True):
            folders = "folder" in other.protocol["datasets"][row.dataset]
            folders |= "folder" in trained.protocol["datasets"][mate.dataset]
            if data and data == there and row.dataset != mate.dataset and folders:
                found.add(f"{row.dataset}: {row.path}")
    return found


pictures = st.lists(
    st.tuples(st.sampled_from("abc"), st.binary(max_size=2).map(lambda b: b[:2] * 2)), max_size=12
)


@given(pictures, pictures, st.sets(st.sampled_from("abc")))
def test_what_is_shared_is_what_a_naive_comparison_finds(trained, other, folders):
    one, two = Split(trained, folders), Split(other, folders)
    found = TrainedPictures(one).shared_with(two)
    assert {name for name, _ in found} == naive(one, two)
    assert len(found) == len({name for name, _ in found})
    for name, mate in found:
        assert two.data[int(name.split(": ")[1])] == one.data[int(mate.split(": ")[1])]


def test_many_tests_and_questions_look_at_the_training_pictures_once():
    trained = Split([("a", bytes([n, n])) for n in range(50)], {"a"})
    others = [Split([(name, b"xx"), (name, bytes([7, 7]))], {name}) for name in ("b", "c", "d")]
    pictures = TrainedPictures(trained)
    for _ in range(3):
        assert [len(pictures.shared_with(other)) for other in others] == [1, 1, 1]
    assert trained.looks == {"size": 50, "bytes": 50}
    assert all(other.looks == {"size": 2, "bytes": 2} for other in others)
