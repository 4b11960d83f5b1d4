"""What a run leaves behind, and where."""

from __future__ import annotations

import os
import re

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from effort_finetune.config import resolve
from effort_finetune.evaluate.evaluation import evaluate_model
from effort_finetune.host import open_host
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.finetuning import finetune
from effort_finetune.weights import run_state

from .conftest import COMMAND, EMBEDDED
from .running import document, run


def test_a_run_leaves_everything_the_guide_names(bench):
    outcome = run(bench, test_dataset=["Toy"])
    names = {path.name for path in outcome.run_dir.iterdir()}
    assert {"finetuning.log", "settings.yaml", "results.json"} <= names
    assert {"ckpt_last.pth", "ckpt_best.pth", "scores"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert outcome.published_path == bench.root / "published" / "effort_toy.pth"
    assert outcome.published_path.read_bytes() == outcome.best_path.read_bytes()
    results = document(outcome)
    assert results["status"] == "complete"
    assert results["kind"] == "finetuning"
    assert set(results["datasets"]) == {"Toy"}
    training = results["training"]
    assert training["epochs"] == {"asked": 2, "done": 2, "stopped_early": False}
    assert [entry["epoch"] for entry in training["history"]] == [0, 1]
    assert all(entry["train"]["samples"] == 24 for entry in training["history"]), "no frame is dropped"
    assert set(training["history"][0]["train"]["loss"]) >= {"overall", "real", "fake"}
    assert training["history"][0]["selection"]["Toy"]["video_auc"] is not None
    assert training["selection"]["select_on"] == "val"
    assert training["selection"]["oracle"] is False
    assert training["trainable"]["by_group"].keys() == {"residual", "head"}
    assert training["data"]["frames"] == 24


def test_the_published_checkpoint_is_what_was_measured(bench):
    outcome = run(bench, test_dataset=["Toy"])
    settings = bench.settings(test_dataset=["Toy"], pretrained_weights=str(outcome.published_path))
    model = EffortFinetuneDetector(settings)
    again = evaluate_model(model, bench.host, settings, ["Toy"], "test", autocast=None)
    assert again.datasets["Toy"].metric("auc") == document(outcome)["datasets"]["Toy"]["frame"]["auc"]
    assert model.load_report.missing == ()


def test_without_test_dataset_the_results_say_so(bench):
    outcome = run(bench, nEpochs=1)
    assert document(outcome)["datasets"] == {}
    assert "no test_dataset given" in (outcome.run_dir / "finetuning.log").read_text()


def test_tensorboard_has_losses_and_metrics(bench):
    outcome = run(bench, rec_iter=2, test_dataset=["Toy"])
    board = EventAccumulator(str(outcome.run_dir))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {"train/overall", "train/real", "train/fake", "train/lr", "train/grad_norm"} <= tags
    assert {"val/Toy/video_auc", "val/Toy/auc", "val/Toy/loss", "val/Toy/f1"} <= tags
    assert [event.step for event in board.Scalars("train/overall")] == [2, 4, 6, 8, 10, 12]
    assert [event.step for event in board.Scalars("val/Toy/auc")] == [0, 6, 12], "the start, too"
    assert [event.step for event in board.Scalars("test/Toy/video_auc")] == [12]


def test_default_folder_is_named_and_the_host_gets_the_guides_log(bench, tmp_path):
    host = tmp_path / "host"  # the embedded one but for its logs, so that the repository stays clean
    (host / "training").mkdir(parents=True)
    for entry in (EMBEDDED / "training").iterdir():
        if entry.name != "logs":
            (host / "training" / entry.name).symlink_to(entry)
    settings = bench.settings(
        output_dir=None, log_dir=str(host / "training" / "logs"), nEpochs=1, save_to=None
    )
    outcome = finetune(settings, open_host(host), command=COMMAND)
    assert outcome.run_dir.parent == (host / "training" / "logs").resolve()
    assert re.fullmatch(r"effort_finetune_toy_\d{4}(-\d\d){5}", outcome.run_dir.name)
    assert outcome.published_path is None
    shared = (host / "training" / "logs" / "finetuning.log").read_text()
    assert shared == (outcome.run_dir / "finetuning.log").read_text()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line) for line in shared.splitlines())


def test_written_settings_reproduce_the_run(bench):
    outcome = run(bench, nEpochs=1, **{"optimizer.lr": 2e-4})
    again = resolve(flags={}, yaml_path=outcome.run_dir / "settings.yaml", host_defaults={})
    assert again == bench.settings(nEpochs=1, **{"optimizer.lr": 2e-4})


def test_save_epoch_spaces_the_writes(bench, monkeypatch):
    written = []
    original = run_state.save_last

    def spy(path, state):
        written.append(state["epoch"])
        return original(path, state)

    monkeypatch.setattr(run_state, "save_last", spy)
    run(bench, nEpochs=3, save_epoch=2)
    assert written == [2, 3], "after two epochs, and at the end whatever the spacing"
    written.clear()
    run(bench, nEpochs=2, save_epoch=1)
    assert written == [1, 2], "once an epoch"


def test_the_working_tree_is_left_alone(bench, monkeypatch, tmp_path):
    """A run with an output folder writes there, to save_to and nowhere else."""
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path))
    run(bench, nEpochs=1)
    assert set(os.listdir(tmp_path)) - before == {"out", "published"}
