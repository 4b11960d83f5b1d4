"""What a run that cannot go on leaves behind is true."""

from __future__ import annotations

import json
from typing import Any

import pytest

from effort_finetune.errors import RunFailure, UserError
from effort_finetune.train.run import Outcome, finetune

from .conftest import COMMAND, Bench, write_dataset


def run(bench: Bench, **flags: Any) -> Outcome:
    settings = bench.settings(**{"nEpochs": 1, "save_to": None, **flags})
    return finetune(settings, bench.host, command=COMMAND)


def own_data(bench: Bench) -> None:
    """Replaces the shared datasets by an empty folder of this test's own."""
    for name in ("json", "lmdb"):
        (bench.root / name).unlink()


def test_numbers_of_a_validation_that_failed_are_not_shown_as_test_numbers(bench):
    own_data(bench)
    write_dataset(bench.root, "Toy", {"train": 2, "val": 2, "test": 2})
    write_dataset(bench.root, "Broken", {"val": 2}, leave_out=3)
    with pytest.raises(RunFailure, match="val frames of Broken could not be read"):
        run(bench, val_dataset=["Toy", "Broken"], test_dataset=["Toy"])
    results = json.loads((bench.root / "out" / "results.json").read_text())
    assert results["status"] == "failed"
    assert results["datasets"] == {}


def test_a_run_whose_data_changed_is_not_resumed(bench):
    own_data(bench)
    write_dataset(bench.root, "Toy", {"train": 2, "val": 2})
    out = run(bench).run_dir
    index = bench.root / "json" / "Toy.json"
    before = index.read_text()
    listed = json.loads(before)
    fakes = listed["Toy"]["Toy_Fake"]["train"]
    fakes.pop(next(iter(fakes)))
    index.write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"--resume; got other training frames than.*--pretrained_weights"):
        run(bench, nEpochs=2, resume=str(out))
    listed = json.loads(before)
    listed["Toy"]["Toy_Real"]["val"] = listed["Toy"]["Toy_Real"]["train"]
    index.write_text(json.dumps(listed))
    with pytest.raises(UserError, match="got other frames of Toy, which choose the checkpoint"):
        run(bench, nEpochs=2, resume=str(out))
    index.write_text(before)
    run(bench, nEpochs=2, resume=str(out))


def test_a_resumed_run_cannot_have_fewer_epochs_than_are_done(bench):
    out = run(bench, nEpochs=2).run_dir
    with pytest.raises(UserError, match=r"nEpochs; got 1; expected at least 2, which are done"):
        run(bench, nEpochs=1, resume=str(out))
    run(bench, nEpochs=2, resume=str(out))
