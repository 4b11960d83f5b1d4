"""Fine-tuning and evaluation on an accelerator, and back on the CPU."""

from __future__ import annotations

import pytest
import torch

from effort_finetune.evaluate import results
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.train.finetuning import finetune
from effort_finetune.weights.run_state import load_last

pytestmark = pytest.mark.gpu
COMMAND = ("effort-finetune finetune",)


@pytest.fixture(params=["float32", "bf16", "fp16"])
def precision(request, device):
    if request.param == "fp16" and device.type != "cuda":
        pytest.skip("fp16 training is for CUDA, where gradients are scaled")
    return request.param


def test_a_run_in_every_precision(bench, device, precision):
    settings = bench.settings(device=str(device), precision=precision, output_dir=str(bench.root / "out"))
    outcome = finetune(settings, bench.host, command=COMMAND)
    document = results.read(outcome.results_path.parent)
    assert document["status"] == "complete"
    assert document["device"]["type"] == device.type
    assert all(entry["train"]["samples"] == 8 for entry in document["training"]["history"])
    assert document["datasets"]["Toy"]["counts"]["frames_scored"] == 12


def test_stopped_and_resumed_equals_one_run(bench, device):
    common = {"device": str(device), "precision": "float32"}
    whole = finetune(
        bench.settings(**common, output_dir=str(bench.root / "whole")), bench.host, command=COMMAND
    )
    short = bench.settings(**common, nEpochs=1, output_dir=str(bench.root / "two"))
    first = finetune(short, bench.host, command=COMMAND)
    second = finetune(
        bench.settings(**common, resume=str(first.last_path), output_dir=None), bench.host, command=COMMAND
    )
    left, right = load_last(whole.run_dir)["changing"], load_last(second.run_dir)["changing"]
    for key, value in left.items():
        torch.testing.assert_close(right[key].cpu(), value.cpu(), rtol=1e-4, atol=1e-6)


WAYS = [
    *({"tune_mode": mode} for mode in ("head", "layernorm", "bitfit", "lora", "dora", "osf", "full")),
    {"tune_mode": "head", "use_data_augmentation": False},
    {"ema_decay": 0.9},
    {"optimizer": {"type": "sam"}},
    {"activation_checkpointing": True},
    {"offload_activations": True},
    {"micro_batch": 2},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_whatever_is_trained_ends_in_a_file_for_any_machine(bench, device, way):
    common = {"device": str(device), "precision": "float32", **way}
    if way.get("tune_mode") in ("lora", "dora"):
        pytest.importorskip("peft")
    first = finetune(
        bench.settings(**common, nEpochs=1, output_dir=str(bench.root / "out")), bench.host, command=COMMAND
    )
    again = finetune(
        bench.settings(**common, resume=str(first.last_path), output_dir=None), bench.host, command=COMMAND
    )
    document = results.read(again.run_dir)
    assert document["status"] == "complete"
    assert document["training"]["epochs"]["done"] == 2
    asked = bench.settings(device="cpu", precision="float32")
    path = evaluate(asked, bench.host, weights=again.best_path, output_dir=bench.root / "cpu")
    there, here = (d["datasets"]["Toy"]["frame"] for d in (document, results.read(path.parent)))
    assert here["brier"] == pytest.approx(there["brier"], abs=1e-4)


def test_the_accelerators_checkpoint_scores_alike_on_the_cpu(bench, device):
    settings = bench.settings(device=str(device), precision="float32", output_dir=str(bench.root / "out"))
    outcome = finetune(settings, bench.host, command=COMMAND)
    state = torch.load(outcome.best_path, weights_only=True)
    assert {value.device.type for value in state.values()} == {"cpu"}, "a file names no device"
    losses = []
    for where in (str(device), "cpu"):
        asked = bench.settings(device=where, precision="float32")
        path = evaluate(
            asked, bench.host, weights=outcome.best_path, output_dir=bench.root / f"on_{where[:3]}"
        )
        losses.append(results.read(path.parent)["datasets"]["Toy"]["frame"])
    for name in ("auc", "ap", "brier"):
        assert losses[0][name] == pytest.approx(losses[1][name], abs=1e-4)


def test_memory_of_the_device_is_reported(device):
    from effort_finetune.core.device import memory_report

    held = torch.ones(1 << 20, device=device)
    report = memory_report(device)
    assert report["host_peak_gib"] > 0
    if device.type != "cpu":
        assert report["allocated_gib"] > 0, held.device
