from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from effort_finetune.config import resolve
from effort_finetune.errors import RunFailure, UserError, UserErrors
from effort_finetune.evaluate import results as results_file
from effort_finetune.evaluate.run import evaluate_model
from effort_finetune.evaluate.table import results_table
from effort_finetune.host import open_host
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train import setup as setup_file
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.run import Outcome, finetune

from .conftest import COMMAND, EMBEDDED, Bench, write_dataset


def run(bench: Bench, **flags: Any) -> Outcome:
    return finetune(bench.settings(**flags), bench.host, command=COMMAND)


def document(outcome: Outcome) -> dict[str, Any]:
    return results_file.read(outcome.results_path)


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


@pytest.fixture
def started(bench, monkeypatch):
    """Bench and the state dict every run of the test begins with."""
    states = []

    def remember(settings, data):
        model = build(settings, data)
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return model

    build = setup_file.build_model
    monkeypatch.setattr(setup_file, "build_model", remember)
    return bench, states


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


def test_exactly_residual_and_head_change(started):
    bench, states = started
    outcome = run(bench)
    before, after = states[0], state(outcome.best_path)
    assert before.keys() == after.keys()
    trained = re.compile(r"(^head\.(weight|bias)|\.[USV]_residual)$")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if trained.search(name)}
    assert sum(name.endswith("S_residual") for name in changed) == 8, "4 attention weights in 2 blocks"


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        ({"tune_mode": "head"}, r"^head\."),
        ({"train_svd_residuals": False}, r"^head\."),
        ({"train_classification_head": False}, r"_residual$"),
        ({"layer_range": [1, 1]}, r"^head\.|layers\.1\..*_residual$"),
        ({"unfreeze": ["layers.1.layer_norm1"]}, r"^head\.|_residual$|layers\.1\.layer_norm1\."),
    ],
)
def test_what_is_trained_is_what_was_asked(started, flags, pattern):
    bench, states = started
    outcome = run(bench, nEpochs=1, **flags)
    before, after = states[0], state(outcome.last_path)["model"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if re.search(pattern, name)}


def test_same_seed_same_run_other_seed_another(bench):
    one = run(bench, output_dir=str(bench.root / "1"), use_data_augmentation=True)
    two = run(bench, output_dir=str(bench.root / "2"), use_data_augmentation=True, workers=2)
    other = run(bench, output_dir=str(bench.root / "3"), manualSeed=7)
    first, second, third = (state(o.best_path) for o in (one, two, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], third["head.weight"])


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


def test_schedule_really_steps(bench):
    outcome = run(bench, nEpochs=3, lr_scheduler="cosine", lr_T_max=3, lr_eta_min=1e-5)
    rates = [entry["lr"] for entry in document(outcome)["training"]["history"]]
    assert rates[0] == 1e-3
    assert rates[0] > rates[1] > rates[2] > 1e-5


def test_tensorboard_has_losses_and_metrics(bench):
    outcome = run(bench, rec_iter=2)
    board = EventAccumulator(str(outcome.run_dir))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {"train/overall", "train/real", "train/fake", "train/lr", "train/grad_norm"} <= tags
    assert {"val/Toy/video_auc", "val/Toy/auc", "val/Toy/loss", "val/Toy/f1"} <= tags
    assert [event.step for event in board.Scalars("train/overall")] == [2, 4, 6, 8, 10, 12]
    assert [event.step for event in board.Scalars("val/Toy/auc")] == [6, 12]


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
    (warning,) = document(outcome)["training"]["selection"]["warnings"]
    assert "4 of 4 val videos of Toy are in its train split" in warning
    assert warning in (outcome.run_dir / "finetuning.log").read_text()


def test_torchrun_is_refused(bench, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun"):
        run(bench)


def test_a_bug_leaves_its_traceback_in_the_log(bench, monkeypatch, capsys):
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(TrainingLoop, "_step", broken)
    with pytest.raises(ZeroDivisionError):
        run(bench)
    assert "ZeroDivisionError: a bug" in (bench.root / "out" / "finetuning.log").read_text()
    assert "a bug" not in capsys.readouterr().err


def test_one_batch_per_epoch(bench):
    outcome = run(bench, train_batchSize=64, nEpochs=3)
    assert [entry["train"]["steps"] for entry in document(outcome)["training"]["history"]] == [1, 1, 1]


def test_several_training_sets_and_another_validation_set(bench, toy_root):
    outcome = run(bench, train_dataset=["Toy", "NoVal"], val_dataset=["Toy"], nEpochs=1)
    assert document(outcome)["training"]["data"]["frames"] == 36
    assert outcome.published_path.name == "effort_toy_noval.pth"


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
    last = state(outcome.last_path)["model"]
    best = state(outcome.best_path)
    assert all(torch.equal(last[name], best[name]) for name in best)


def test_select_on_test_is_labelled_an_oracle(bench):
    outcome = run(bench, select_on="test", test_dataset=["Toy"], nEpochs=1)
    assert document(outcome)["training"]["selection"]["oracle"] is True
    assert "oracle" in (outcome.run_dir / "finetuning.log").read_text()
    with pytest.raises(UserError, match="select_on 'test'"):
        run(bench, select_on="test")


def test_early_stopping_ends_the_run(bench):
    outcome = run(bench, nEpochs=9, metric_scoring="loss", **{
        "early_stopping.patience": 1,
        "early_stopping.min_delta": 1e9,
    })  # fmt: skip
    training = document(outcome)["training"]
    # The first epoch improves on nothing; the second cannot by so much.
    assert training["epochs"] == {"asked": 9, "done": 2, "stopped_early": True}


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


def test_non_finite_loss_ends_the_run_with_what_there_is(bench):
    with pytest.raises(RunFailure, match=r"not finite.*learning rate.*frames: |gradient is not finite"):
        run(bench, **{"optimizer.type": "sgd", "optimizer.lr": 1e30})
    results = json.loads((bench.root / "out" / "results.json").read_text())
    assert results["status"] == "failed"
    assert "finite" in results["reason"]
    saved = state(bench.root / "out" / "ckpt_last.pth")
    assert saved["epoch"] == 0
    assert results["training"]["published"] is None
    assert not (bench.root / "published" / "effort_toy.pth").exists()


@pytest.mark.parametrize(
    "flags",
    [
        {"pretrained_weights": "/nowhere/effort.pth"},
        {"unfreeze": ["no_such_layer"]},
        {"train_svd_residuals": False, "train_classification_head": False},
        {"lr_scheduler": "cosine", "lr_eta_min": 1.0},
    ],
)
def test_a_run_that_cannot_start_writes_nothing(bench, flags):
    with pytest.raises(UserError):
        run(bench, **flags)
    assert not (bench.root / "out").exists()
    assert not (bench.root / "published").exists()


def test_a_checkpoint_that_cannot_be_published_is_kept_and_said(bench, monkeypatch):
    def refuse(selected: Path, target: Path) -> Path:
        raise OSError("read-only file system")

    monkeypatch.setattr("effort_finetune.train.run.publish", refuse)
    with pytest.raises(RunFailure, match=r"read-only.*ckpt_best\.pth"):
        run(bench, nEpochs=1)
    results = json.loads((bench.root / "out" / "results.json").read_text())
    assert (results["status"], results["training"]["published"]) == ("failed", None)
    assert results["checkpoint"]["path"].endswith("ckpt_best.pth")


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
    assert results["datasets"]["Toy"]["warnings"] == []
    said = "4 of 4 test videos of Copy are trained on under another dataset's name"
    assert results["datasets"]["Copy"]["warnings"] == [f"{said}: the numbers hold training data"]
    assert results["training"]["selection"]["warnings"] == []
    assert said in (outcome.run_dir / "finetuning.log").read_text()


@pytest.mark.parametrize(("epochs", "early"), [(4, True), (2, False)])
def test_early_stopping_is_said_where_it_left_epochs_out(bench, epochs, early):
    patience = {"early_stopping.patience": 1, "early_stopping.min_delta": 1.0}
    outcome = run(bench, nEpochs=epochs, save_to=None, **patience)
    assert document(outcome)["training"]["epochs"] == {"asked": epochs, "done": 2, "stopped_early": early}
    log = (outcome.run_dir / "finetuning.log").read_text()
    assert ("stopped early: 1 epochs without a better video_auc" in log) is early


def test_a_save_to_that_cannot_be_written_names_its_own_flag(bench):
    (bench.root / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"folder of save_to; .*--save_to"):
        run(bench, save_to=str(bench.root / "file" / "best.pth"))


@pytest.mark.parametrize(("select_on", "oracle"), [("test", True), ("val", False)])
def test_an_oracles_numbers_carry_the_label_wherever_they_are_shown(bench, select_on, oracle):
    results = document(run(bench, nEpochs=1, test_dataset=["Toy"], select_on=select_on, save_to=None))
    warnings = results["datasets"]["Toy"]["warnings"]
    assert (warnings == ["an oracle: the labels of the test sets chose the checkpoint"]) is oracle
    assert ("an oracle" in results_table(results)) is oracle


def test_data_that_all_splits_lack_is_one_error_and_val_is_looked_at_too(bench):
    with pytest.raises(UserErrors) as caught:
        run(bench, train_dataset=["Absent"], test_dataset=["Absent"], val_dataset=["Other"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "'Absent'" in lines[0]
    assert "'Other'" in lines[1]


def test_a_full_disk_ends_the_run_with_its_history(bench, monkeypatch):
    def full(obj: object, target: Path) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunFailure, match="could not be written"):
        run(bench)
    results = json.loads((bench.root / "out" / "results.json").read_text())
    assert results["status"] == "failed"
    assert results["checkpoint"] is None


def test_missing_training_frames_above_the_rate_fail(bench):
    (bench.root / "json").unlink()
    (bench.root / "lmdb").unlink()
    write_dataset(bench.root, "Toy", {"train": 4, "val": 1}, leave_out=2)
    with pytest.raises(
        RunFailure, match=r"2 of 24 training frames could not be read \(8\.33%, allowed 1\.00%\)"
    ):
        run(bench)
    outcome = run(bench, max_missing_rate=0.1)
    history = document(outcome)["training"]["history"]
    assert [(e["train"]["samples"], e["train"]["missing"]) for e in history] == [(22, 2), (22, 2)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"train_dataset": []}, "--train_dataset"),
        ({"train_dataset": ["Tyo"]}, "Toy"),
        ({"metric_scoring": "auroc"}, "metric_scoring"),
        ({"device": "cuda:99"}, "device"),
        ({"precision": "fp16"}, "precision"),
        ({"pretrained_weights": "nowhere.pth"}, "nowhere.pth"),
        ({"lr_scheduler": "cosine", "lr_eta_min": 1.0}, "lr_eta_min"),
        ({"train_svd_residuals": False, "train_classification_head": False}, "trainable"),
    ],
)
def test_user_errors_come_before_any_step(bench, flags, message):
    with pytest.raises(UserError, match=re.escape(message)):
        run(bench, **flags)


def test_every_data_error_is_reported_at_once(bench):
    with pytest.raises(UserErrors) as caught:
        run(bench, train_dataset=["Tyo"], test_dataset=["Nowhere"])
    assert len(caught.value.errors) == 2


def test_an_output_folder_that_cannot_be_written(bench):
    blocked = bench.root / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="output folder"):
        run(bench, output_dir=str(blocked / "out"))
    with pytest.raises(UserError, match="save_to"):
        run(bench, save_to=str(blocked / "x.pth"))


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
    from effort_finetune.train import checkpoint

    original = checkpoint.save_last

    def spy(path, *, model, settings, state):
        written.append(state["epoch"])
        return original(path, model=model, settings=settings, state=state)

    monkeypatch.setattr(checkpoint, "save_last", spy)
    run(bench, nEpochs=3, save_epoch=2)
    assert written == [2, 3], "after two epochs, and at the end whatever the spacing"
    written.clear()
    run(bench, nEpochs=2, save_epoch=1)
    assert written == [1, 2], "once an epoch: the file of a ViT-L has 1.2 GB"


def test_balanced_weights_know_the_training_counts(bench, monkeypatch):
    told = []
    monkeypatch.setattr(EffortFinetuneDetector, "set_class_counts", lambda self, *counts: told.append(counts))
    with pytest.raises(UserError, match="no class counts"):  # told, but kept from the detector
        run(bench, nEpochs=1, **{"loss.class_weights": "balanced"})
    assert told == [(12, 12)]
    monkeypatch.undo()
    run(bench, nEpochs=1, **{"loss.class_weights": "balanced"})


def test_bf16_run_states_its_precision(bench):
    outcome = run(bench, nEpochs=1, precision="bf16", test_dataset=["Toy"])
    results = document(outcome)
    assert results["training"]["precision"]["name"] == "bf16"
    assert results["device"]["precision"] == "bfloat16"
    assert all(v.dtype == torch.float32 for v in state(outcome.best_path).values())


def test_the_working_tree_is_left_alone(bench, monkeypatch, tmp_path):
    """A run with an output folder writes there, to save_to and nowhere else."""
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path))
    run(bench, nEpochs=1)
    assert set(os.listdir(tmp_path)) - before == {"out", "published"}
