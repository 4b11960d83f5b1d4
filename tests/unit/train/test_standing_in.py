"""Who writes once the first process is gone."""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from effort_finetune.core.files import mark_of
from effort_finetune.core.launch import Launch
from effort_finetune.core.ranks import Ranks
from effort_finetune.train.standing_in import stand_in


def leads(folder, before) -> bool:
    ours = Ranks(Launch(rank=1, size=2))
    with ExitStack() as held:
        stand_in(ours, SimpleNamespace(folder=folder), held, before=before)
    return ours.leads


@pytest.mark.parametrize("clock", ["as it was", "set back an hour"])
def test_results_that_the_first_process_wrote_stay_though_the_clock_was_set_back(tmp_path, clock):
    results = tmp_path / "results.json"
    before = mark_of(results)
    results.write_text("{}")
    if clock != "as it was":
        os.utime(results, (results.stat().st_mtime - 3600,) * 2)
    assert not leads(tmp_path, before)


def test_results_of_an_earlier_run_keep_nobody_from_writing(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    assert leads(tmp_path, mark_of(tmp_path / "results.json"))
    assert leads(tmp_path, None) is False, "written by the first process after this one began"
    (tmp_path / "results.json").unlink()
    assert leads(tmp_path, None)
