"""A step that does not fit is made in pieces, the same step; keeping less changes no gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from toytower import toy_detector

from effort_finetune.config import resolve
from effort_finetune.core.free_memory import free_memory
from effort_finetune.core.precision import resolve_precision
from effort_finetune.model.saved_activations import offloaded, recompute_blocks, to_main_memory
from effort_finetune.train import memory_estimate, memory_plan
from effort_finetune.train.broken_step import BrokenStep
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.memory_estimate import estimate_memory
from effort_finetune.train.micro_batch import MicroBatch
from effort_finetune.train.optim import build_optimizer
from effort_finetune.weights import run_state

from .running import document, run
from .toys import ToyDetector, batch

CPU = torch.device("cpu")


class Narrow(ToyDetector):
    """A detector for which only so many frames fit."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.tried = room, []

    def forward(self, data: dict[str, Any], inference: bool = False) -> dict[str, torch.Tensor]:
        size = len(data["label"])
        self.tried.append(size)
        if size > self.room:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return super().forward(data, inference)


def loop_of(model: ToyDetector, **options: Any) -> TrainingLoop:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    return TrainingLoop(model, optimizer, resolve_precision("float32", CPU), CPU, **options)


def test_a_step_that_does_not_fit_is_made_in_pieces():
    batches = [batch(7, 1), batch(2, 2), batch(7, 3)]
    whole, narrow = ToyDetector(), Narrow(2)
    wide = loop_of(whole, accumulation_steps=2)
    said: list[str] = []
    small = loop_of(narrow, accumulation_steps=2, micro=MicroBatch(on_halved=said.append))
    one, other = (
        wide.run_epoch(batches, EpochProgress(0)),
        small.run_epoch(batches, EpochProgress(0)),
    )
    assert torch.allclose(whole.head.weight, narrow.head.weight, atol=1e-6)
    assert (one.steps, one.batches, one.samples) == (other.steps, other.batches, other.samples)
    assert one.means() == pytest.approx(other.means(), abs=1e-6)
    assert narrow.tried[:3] == [7, 4, 2]  # 7 does not fit, nor do 4
    assert [entry["then"] for entry in small.micro.halved] == [4, 2]
    assert len(said) == 2


def test_where_one_frame_does_not_fit_the_run_is_told_so():
    with pytest.raises(BrokenStep, match="activation_checkpointing"):
        loop_of(Narrow(0)).run_epoch([batch(4, 1)], EpochProgress(0))


def test_the_size_of_pieces_is_recorded_and_goes_on_with_the_run(bench, monkeypatch):
    original = TrainingLoop._backward

    def narrow(self: TrainingLoop, data: Any, share: float) -> Any:
        if len(data["label"]) > 3:  # a batch has 4
            raise MemoryError
        return original(self, data, share)

    monkeypatch.setattr(TrainingLoop, "_backward", narrow)
    monkeypatch.setattr(memory_plan, "SMALL", 0)
    outcome = run(bench, save_to=None, nEpochs=1)
    memory = document(outcome)["training"]["memory"]
    assert memory["micro_batch"]["frames"] == 2
    assert [entry["frames"] for entry in memory["micro_batch"]["halved"]] == [4]
    assert memory["estimate"]["total"] > memory["estimate"]["held"] > 0
    assert run_state.load_last(outcome.run_dir)["micro_batch"] == memory["micro_batch"]
    assert "from here on 2 go through" in (outcome.run_dir / "finetuning.log").read_text()
    again = run(bench, save_to=None, nEpochs=2, resume=str(outcome.run_dir))
    assert document(again)["training"]["memory"]["micro_batch"]["frames"] == 2


def test_auto_takes_what_fits_and_leaves_the_steps_as_they_are(bench, monkeypatch):
    needed = estimate_memory(tower_loop(), (3, 32, 32))
    assert needed is not None
    room = (needed.fixed + 2.5 * needed.frame) / 0.8
    whole = document(run(bench, save_to=None, nEpochs=1, output_dir=str(bench.root / "whole")))
    monkeypatch.setattr(memory_estimate, "free_memory", lambda device: room)
    outcome = run(bench, save_to=None, nEpochs=1, micro_batch="auto")
    training = document(outcome)["training"]
    assert training["memory"]["micro_batch"] == {"frames": 2, "halved": []}
    assert training["history"][0]["train"]["steps"] == whole["training"]["history"][0]["train"]["steps"]


def tower_loop(**flags: Any) -> TrainingLoop:
    """A loop over a tower of two layers on pictures of 32 pixels."""
    settings = resolve(flags={"resolution": 32, "head_width": 16, **flags}, yaml_path=None, host_defaults={})
    model = toy_detector(0, **flags)
    optimizer = build_optimizer(model, settings)
    return TrainingLoop(model, optimizer, resolve_precision("float32", CPU), CPU)


def gradients(loop: TrainingLoop) -> list[torch.Tensor]:
    torch.manual_seed(1)
    frames = {"image": torch.randn(3, 3, 32, 32), "label": torch.tensor([0, 1, 1]), "index": torch.arange(3)}
    loop.model.train()
    loop._backward(frames, 1.0)
    return [p.grad.clone() for p in loop.parameters if p.grad is not None]


@pytest.mark.parametrize("way", ["recomputed", "offloaded"])
def test_what_is_kept_less_or_elsewhere_gives_the_same_gradient_to_the_bit(way, monkeypatch):
    plain = gradients(tower_loop())
    loop = tower_loop()
    if way == "recomputed":
        recompute_blocks(loop.model.backbone)
    else:
        loop.kept = lambda: offloaded(loop.model)
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(loop), strict=True))


def test_the_copy_in_main_memory_is_a_copy():
    value = torch.randn(3, 5).t()[1:]
    copy = to_main_memory(value)
    assert torch.equal(copy, value)
    assert copy.data_ptr() != value.data_ptr()


def test_recomputed_blocks_keep_less():
    plain, recomputed = (tower_loop() for _ in range(2))
    recompute_blocks(recomputed.model.backbone)
    kept = [estimate_memory(loop, (3, 32, 32)) for loop in (plain, recomputed)]
    assert kept[0] is not None
    assert kept[1] is not None
    assert kept[1].frame < kept[0].frame


@pytest.mark.parametrize("settings", [{}, {"tune_mode": "lora", "lora": {"rank": 2, "dropout": 0.5}}])
def test_an_estimate_leaves_no_trace(settings):
    loop = tower_loop(**settings)
    before = torch.get_rng_state()
    assert estimate_memory(loop, (3, 32, 32)) is not None
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in loop.parameters)
    assert not loop.optimizer.state


_LIMITED = """
import json, resource, sys, torch
sys.path[:0] = [{tests!r}]
from unit.train.test_memory import tower_loop
from effort_finetune.core.free_memory import free_memory
from effort_finetune.train.epoch_progress import EpochProgress
loop = tower_loop()
frames = 8192
data = dict(image=torch.randn(frames, 3, 32, 32), label=torch.arange(frames) % 2, index=torch.arange(frames))
loop.run_epoch([dict((k, v[:8]) for k, v in data.items())], EpochProgress(0))
taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 96 * 2**20, resource.RLIM_INFINITY))
free = free_memory(torch.device('cpu'))
done = loop.run_epoch([data], EpochProgress(1))
print(json.dumps([done.steps, done.samples, loop.micro.state_dict(), free]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit of the address space")
def test_under_a_limit_of_the_process_a_batch_that_does_not_fit_is_trained_on(request):
    tests = str(request.config.rootpath / "tests")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED.format(tests=tests)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    steps, samples, micro, free = json.loads(done.stdout.splitlines()[-1])
    assert (steps, samples) == (1, 8192)
    assert micro["frames"] < 8192
    assert micro["halved"]
    assert 0 < free <= 96 * 2**20


def test_free_memory_is_a_number_of_bytes():
    assert free_memory(CPU) > 2**20
