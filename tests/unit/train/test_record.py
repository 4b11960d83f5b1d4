"""What a run says about itself: the processes it was made by, what chose its checkpoint, its log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from effort_finetune.evaluate import results as results_file
from effort_finetune.weights.run_state import load_last

from .conftest import write_dataset
from .running import document, quick


def test_the_times_of_a_resumed_run_are_those_of_all_its_processes(bench):
    first = document(quick(bench))
    (one,) = first["training"]["processes"]
    assert one["seconds"] == pytest.approx(first["timings"]["total_s"], abs=0.1)
    saved = load_last(bench.root / "out")["processes"]
    assert [entry["seconds"] <= first["timings"]["total_s"] for entry in saved] == [True]
    resumed = document(quick(bench, nEpochs=3, resume=str(bench.root / "out"), output_dir=None))
    processes = resumed["training"]["processes"]
    assert processes[:1] == saved
    assert [(p["from_epoch"], p["from_batch"]) for p in processes] == [(0, 0), (1, 0)]
    times = resumed["timings"]
    assert times["total_s"] == pytest.approx(saved[0]["seconds"] + times["process_s"], abs=0.1)
    again = document(quick(bench, nEpochs=4, resume=str(bench.root / "out"), output_dir=None))
    assert [p["from_epoch"] for p in again["training"]["processes"]] == [0, 1, 3]


def test_what_chose_the_checkpoint_is_on_record(bench):
    outcome = quick(bench, frame_num={"train": 2, "test": 3}, frame_sampling="first", test_dataset=["Toy"])
    results = document(outcome)
    chosen = results["training"]["selection"]["protocol"]["Toy"]
    assert (chosen["split"], chosen["frames_asked"], chosen["sampling"]) == ("val", 2, "first")
    assert chosen["datasets"]["Toy"]["videos"] == 4
    assert results["protocol"]["frames_asked"] == 3
    assert document(quick(bench, select_on="last"))["training"]["selection"]["protocol"] == {}


def test_frames_that_validation_lacked_are_on_record(bench):
    for name in ("json", "lmdb"):
        (bench.root / name).unlink()
    write_dataset(bench.root, "Toy", {"val": 2, "train": 2}, leave_out=1)
    outcome = quick(bench, max_missing_rate=0.2)
    (entry,) = document(outcome)["training"]["history"]
    assert entry["selection_missing"] == {"Toy": 1}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "an epoch: 6 batches of 4 frames or fewer, 6 steps of 4 or fewer"),
        ({"accumulation_steps": 4}, "an epoch: 6 batches of 4 frames or fewer, 2 steps of 16 or fewer"),
        (
            {"train_batchSize": 64, "accumulation_steps": 8},
            "an epoch: 1 batches of 24 frames or fewer, 1 steps of 24 or fewer",
        ),
    ],
)
def test_the_log_counts_steps_and_frames_that_there_are(bench, flags, said):
    log = (quick(bench, **flags).run_dir / "finetuning.log").read_text()
    assert re.search(rf"{said}$", log, re.MULTILINE)


def test_results_of_the_version_before_still_open(bench, tmp_path: Path):
    results = document(quick(bench))
    results["schema_version"] = "1.0"
    del results["training"]["processes"], results["training"]["selection"]["protocol"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert results_file.read(tmp_path)["schema_version"] == "1.0"


def test_the_log_shows_the_rate_of_every_kind_of_weights(bench):
    outcome = quick(bench, **{"optimizer.lr_head": 0.01, "optimizer.layer_decay": 0.5})
    log = (outcome.run_dir / "finetuning.log").read_text()
    assert re.search(r"learning rate residual 0\.0005, head 0\.01$", log, re.MULTILINE)
    assert "; lr residual 0.0005, head 0.01, gradient norm" in log
