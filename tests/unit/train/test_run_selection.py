"""What chooses the checkpoint and when a run ends; what taints the choice is said."""

from __future__ import annotations

import json

import pytest
import torch

from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.evaluate.table import results_table
from effort_finetune.weights import run_state

from .conftest import write_dataset
from .running import document, run, state


def test_no_val_split_says_what_to_do(bench):
    with pytest.raises(UserErrors, match=r"NoVal.*--val_dataset NAME or --select_on last"):
        run(bench, train_dataset=["NoVal"])
    assert not (bench.root / "out").exists(), "nothing is written before the data is known to be right"


def test_select_on_last_takes_the_last_epoch_and_validates_nothing(bench):
    outcome = run(bench, train_dataset=["NoVal"], select_on="last")
    results = document(outcome)["training"]
    assert results["selection"]["epoch"] == 1
    assert results["selection"]["metric"] is None
    assert results["history"][0]["selection"] == {}
    last = run_state.load_last(outcome.run_dir)["changing"]
    best = state(outcome.best_path)
    assert last
    assert all(torch.equal(last[name], best[name]) for name in last)


def test_select_on_test_is_labelled_an_oracle(bench):
    outcome = run(bench, select_on="test", test_dataset=["Toy"], nEpochs=1)
    assert document(outcome)["training"]["selection"]["oracle"] is True
    assert "oracle" in (outcome.run_dir / "finetuning.log").read_text()
    with pytest.raises(UserError, match="select_on 'test'"):
        run(bench, select_on="test")


@pytest.mark.parametrize(("select_on", "oracle"), [("test", True), ("val", False)])
def test_an_oracles_numbers_carry_the_label_wherever_they_are_shown(bench, select_on, oracle):
    results = document(run(bench, nEpochs=1, test_dataset=["Toy"], select_on=select_on, save_to=None))
    warnings = results["datasets"]["Toy"]["warnings"]
    assert ("an oracle: the labels of the test sets chose the checkpoint" in warnings) is oracle
    assert ("an oracle" in results_table(results)) is oracle


def test_early_stopping_ends_the_run(bench):
    outcome = run(bench, nEpochs=9, metric_scoring="loss", **{
        "early_stopping.patience": 1,
        "early_stopping.min_delta": 1e9,
    })  # fmt: skip
    training = document(outcome)["training"]
    # The first epoch improves on nothing; the second cannot by so much.
    assert training["epochs"] == {"asked": 9, "done": 2, "stopped_early": True}


@pytest.mark.parametrize(("epochs", "early"), [(4, True), (2, False)])
def test_early_stopping_is_said_where_it_left_epochs_out(bench, epochs, early):
    patience = {"early_stopping.patience": 1, "early_stopping.min_delta": 1.0}
    outcome = run(bench, nEpochs=epochs, save_to=None, **patience)
    assert document(outcome)["training"]["epochs"] == {"asked": epochs, "done": 2, "stopped_early": early}
    log = (outcome.run_dir / "finetuning.log").read_text()
    assert ("stopped early: 1 epoch without a better video_auc" in log) is early


def test_early_stopping_without_validation_is_refused(bench):
    with pytest.raises(UserError, match="early_stopping.patience"):
        run(bench, select_on="last", **{"early_stopping.patience": 2})


def test_a_metric_nobody_can_compute_falls_back_openly(bench):
    """One class in validation: no AUC in any epoch; the last epoch is taken and the results say so."""
    root = bench.root
    (root / "json").unlink()
    (root / "lmdb").unlink()
    write_dataset(root, "Toy", {"train": 2, "val": 1})
    index = json.loads((root / "json" / "Toy.json").read_text())
    del index["Toy"]["Toy_Fake"]["val"]
    (root / "json" / "Toy.json").write_text(json.dumps(index))
    selection = document(run(bench))["training"]["selection"]
    assert selection["fallback"] is True
    assert selection["epoch"] == 1
    assert "could not be computed" in selection["note"]


def test_shared_videos_are_said(bench):
    """Upstream's UADFV has all videos in all splits: the choice of the checkpoint is tainted then."""
    (bench.root / "json").unlink()
    (bench.root / "lmdb").unlink()
    write_dataset(bench.root, "Toy", {"train": 2, "val": 2})
    path = bench.root / "json" / "Toy.json"
    index = json.loads(path.read_text())
    for group in index["Toy"].values():
        group["val"] = group["train"]
    path.write_text(json.dumps(index))
    outcome = run(bench, nEpochs=1)
    warnings = document(outcome)["training"]["selection"]["warnings"]
    (warning,) = [w for w in warnings if "4 of 4 val videos of Toy are in its train split" in w]
    assert warning in (outcome.run_dir / "finetuning.log").read_text()


def test_videos_trained_on_under_another_datasets_name_are_said(bench):
    for name in ("json", "lmdb"):
        (bench.root / name).unlink()
    write_dataset(bench.root, "Toy", {"train": 2, "val": 1, "test": 1})
    groups = json.loads((bench.root / "json" / "Toy.json").read_text())["Toy"]
    copied = {group: {"val": splits["val"], "test": splits["train"]} for group, splits in groups.items()}
    (bench.root / "json" / "Copy.json").write_text(json.dumps({"Copy": copied}))
    (bench.root / "lmdb" / "Copy_lmdb").symlink_to(bench.root / "lmdb" / "Toy_lmdb")
    outcome = run(bench, nEpochs=1, test_dataset=["Toy", "Copy"], val_dataset=["Copy"])
    results = document(outcome)
    assert not any("trained on" in warning for warning in results["datasets"]["Toy"]["warnings"])
    said = "4 of 4 test videos of Copy are trained on under another dataset's name"
    assert f"{said}: the numbers hold training data" in results["datasets"]["Copy"]["warnings"]
    assert not any("trained on" in warning for warning in results["training"]["selection"]["warnings"])
    assert said in (outcome.run_dir / "finetuning.log").read_text()
