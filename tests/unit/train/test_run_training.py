"""What is trained, on what and how."""

from __future__ import annotations

import re

import pytest
import torch

from effort_finetune.core.errors import RunFailure
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train import setup as setup_file

from .running import document, run, state


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
    before, after = states[0], state(outcome.best_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if re.search(pattern, name)}


def test_balanced_weights_know_the_training_counts(bench, monkeypatch):
    told = []
    monkeypatch.setattr(EffortFinetuneDetector, "set_class_counts", lambda self, *counts: told.append(counts))
    with pytest.raises(RunFailure, match="no class counts"):  # told, but kept from the detector
        run(bench, nEpochs=1, **{"loss.class_weights": "balanced"})
    assert told == [(12, 12)]
    monkeypatch.undo()
    run(bench, nEpochs=1, **{"loss.class_weights": "balanced"})


def test_schedule_really_steps(bench):
    outcome = run(bench, nEpochs=3, lr_scheduler="cosine", lr_T_max=3, lr_eta_min=1e-5)
    rates = [entry["lr"] for entry in document(outcome)["training"]["history"]]
    assert rates[0] == 1e-3
    assert rates[0] > rates[1] > rates[2] > 1e-5


def test_one_batch_per_epoch(bench):
    outcome = run(bench, train_batchSize=64, nEpochs=3)
    assert [entry["train"]["steps"] for entry in document(outcome)["training"]["history"]] == [1, 1, 1]


def test_same_seed_same_run_other_seed_another(bench):
    one = run(bench, output_dir=str(bench.root / "1"), use_data_augmentation=True)
    two = run(bench, output_dir=str(bench.root / "2"), use_data_augmentation=True, workers=2)
    other = run(bench, output_dir=str(bench.root / "3"), manualSeed=7)
    first, second, third = (state(o.best_path) for o in (one, two, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], third["head.weight"])


def test_several_training_sets_and_another_validation_set(bench, toy_root):
    outcome = run(bench, train_dataset=["Toy", "NoVal"], val_dataset=["Toy"], nEpochs=1)
    assert document(outcome)["training"]["data"]["frames"] == 36
    assert outcome.published_path.name == "effort_toy_noval.pth"


def test_bf16_run_states_its_precision(bench):
    outcome = run(bench, nEpochs=1, precision="bf16", test_dataset=["Toy"])
    results = document(outcome)
    assert results["training"]["precision"]["name"] == "bf16"
    assert results["device"]["precision"] == "bfloat16"
    assert all(v.dtype == torch.float32 for v in state(outcome.best_path).values())
