"""The curves of a run under one scheme of tags, wherever they go; each tracker in its offline mode."""

from __future__ import annotations

import csv
import os
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.train import trackers
from effort_finetune.train.curves_csv import CURVES, SETTINGS
from effort_finetune.train.loop import Record
from effort_finetune.train.trackers import Trackers, require_trackers

from .running import document, quick

RECORD = Record(
    epoch=1, batch=2, batches=3, loss={"overall": 0.5},
    lr=0.1, rates={"head": 0.1}, grad_norm=1.0, samples_per_second=9.0,
    seconds_per_batch=0.1,
)  # fmt: skip
TAGS = {
    "train/overall",
    "train/lr",
    "train/lr_head",
    "train/grad_norm",
    "train/samples_per_second",
    "val/Toy, [1]/auc",
}


def settings(*names, **changes):
    return Settings(tracker=names, nEpochs=7, **changes)


def write(folder, own, *, first_step=None, steps=(2, 4)):
    with Trackers(folder, own, first_step=first_step) as board:
        for step in steps:
            board.record(RECORD, step)
            board.metrics("val", "Toy, [1]", {"auc": step / 10, "eer": None}, step)


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_a_run_leaves_every_curve_in_csv_and_the_table_of_its_settings(bench):
    outcome = quick(bench, tracker=["csv"], rec_iter=2, test_dataset=["Toy"])
    head, *points = rows(outcome.run_dir / CURVES)
    assert head == ["step", "tag", "value"]
    tags = {tag for _, tag, _ in points}
    assert {"train/overall", "train/lr", "val/Toy/video_auc", "val/Toy/loss", "test/Toy/video_auc"} <= tags
    assert [int(step) for step, tag, _ in points if tag == "train/overall"] == [2, 4, 6]
    table = dict(rows(outcome.run_dir / SETTINGS))
    measured = document(outcome)["datasets"]["Toy"]["video"]["auc"]
    assert float(table["test/Toy/video_auc"]) == measured
    assert table["nEpochs"] == str(document(outcome)["settings"]["nEpochs"])
    assert not list(outcome.run_dir.glob("events.out.tfevents*")), "TensorBoard was not asked for"


def test_a_continuation_takes_out_what_a_killed_process_left_behind_its_state(tmp_path):
    write(tmp_path, settings("csv"), steps=(2, 4, 6))
    with (tmp_path / CURVES).open("a") as stream:
        stream.write("8,train/ov")  # killed within a row
    write(tmp_path, settings("csv"), first_step=4, steps=(6,))
    steps = [int(step) for step, tag, _ in rows(tmp_path / CURVES)[1:] if tag == "train/overall"]
    assert steps == [2, 4, 6]


def test_tensorboard_shows_what_a_run_scored_before_it_went_on(tmp_path):
    """An epoch's score stands at the step at which the next process begins."""
    write(tmp_path, settings("tensorboard"), steps=(2, 4, 6))
    write(tmp_path, settings("tensorboard"), first_step=4, steps=(6,))
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [point.step for point in board.Scalars("val/Toy, [1]/auc")] == [2, 4, 6]


def test_tensorboard_has_the_table_of_hyperparameters(tmp_path):
    write(tmp_path, settings("tensorboard"))
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert set(board.Tags()["scalars"]) == TAGS
    plugin = board.summary_metadata["_hparams_/session_start_info"].plugin_data
    assert plugin.plugin_name == "hparams"
    assert b"nEpochs" in plugin.content
    assert b"val/Toy, [1]/auc" in board.summary_metadata["_hparams_/experiment"].plugin_data.content


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra `trackers`: no wandb here")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no login of whoever runs the tests
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder, settings("wandb"))
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    missing = {*TAGS, "nEpochs", "batch"}
    limit = time.monotonic() + 60
    while missing and time.monotonic() < limit:  # W&B's own process writes on when `finish` has returned
        content = file.read_bytes()  # records of plain protobuf
        missing = {words for words in missing if words.encode() not in content}
        time.sleep(0.05)
    assert not missing
    own = (folder / "wandb_run_id.txt").read_text().strip()
    assert own in file.name
    write(folder, settings("wandb"), first_step=4, steps=(6,))
    assert (folder / "wandb_run_id.txt").read_text().strip() == own, "a continuation goes on in the same run"


def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs the extra `trackers`: no mlflow here")
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    write(tmp_path, settings("mlflow"))
    write(tmp_path, settings("mlflow"), first_step=4, steps=(6,))
    client = MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("effort-finetune").experiment_id])
    assert found.data.params["nEpochs"] == "7"
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "val/Toy_ _1_/auc")
    assert [(point.step, point.value) for point in history] == [(2, 0.2), (4, 0.4), (6, 0.6)]
    assert "train/samples_per_second" in found.data.metrics


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_said_before_anything_is_written(bench, monkeypatch, name):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    before = sorted(bench.root.rglob("*"))
    with pytest.raises(UserError, match=rf"tracker {name}; got no package {name} here.*\[trackers\]"):
        quick(bench, tracker=["csv", name])
    assert sorted(bench.root.rglob("*")) == before
    require_trackers(settings("csv", "tensorboard"))


def test_one_tracker_that_fails_costs_its_own_curves_alone(tmp_path, monkeypatch, caplog):
    def broken(folder, own, first_step):
        raise ConnectionError("no server\nat all")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", trackers.Kind("MLflow", broken))
    write(tmp_path, settings("mlflow", "csv"))
    assert [record.getMessage() for record in caplog.records] == [
        "no more MLflow curves: ConnectionError: no server"
    ]
    assert len(rows(tmp_path / CURVES)) == 1 + 2 * len(TAGS)


def test_trackers_change_no_digest(tmp_path):
    assert settings("csv").digest() == settings().digest()
    assert os.listdir(tmp_path) == []
