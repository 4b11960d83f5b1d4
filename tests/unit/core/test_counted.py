"""One is no plural."""

from __future__ import annotations

from effort_finetune.core.counted import counted, worded


def test_a_number_decides_what_follows_it() -> None:
    assert [counted(n, "source") for n in (0, 1, 2)] == ["0 sources", "1 source", "2 sources"]
    assert counted(1, "entry repeats", "entries repeat") == "1 entry repeats"
    assert counted(3, "entry repeats", "entries repeat") == "3 entries repeat"
    assert worded(2, "crop") == "crops"
