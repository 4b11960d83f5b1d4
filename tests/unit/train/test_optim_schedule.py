from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.config import Settings, resolve
from effort_finetune.core.errors import UserError
from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.optim import build_optimizer, learning_rate, learning_rates, trainable_parameters
from effort_finetune.train.schedule import build_schedule, schedule_warning
from effort_finetune.train.sharpness import SAM
from effort_finetune.train.weight_average import WeightAverage

from .toys import ToyDetector


def settings(**flags: object) -> Settings:
    return resolve(flags=flags, yaml_path=None, host_defaults={})


def rates(epochs: int, **flags: object) -> list[float]:
    chosen = settings(**flags)
    optimizer = build_optimizer(ToyDetector(), chosen)
    schedule = build_schedule(optimizer, chosen, steps=3)
    seen = []
    for _ in range(epochs):
        seen.append(learning_rate(optimizer))
        optimizer.step()
        schedule.epoch_done()
    return seen


def step_rates(epochs: int, steps: int, **flags: object) -> list[float]:
    """The rate of every step."""
    chosen = settings(nEpochs=epochs, **flags)
    optimizer = build_optimizer(ToyDetector(), chosen)
    schedule = build_schedule(optimizer, chosen, steps=steps)
    seen = []
    for _ in range(epochs):
        for _ in range(steps):
            seen.append(learning_rate(optimizer))
            optimizer.step()
            schedule.step_made()
        schedule.epoch_done()
    return seen


def torchs(make: Callable[[torch.optim.Optimizer], Any], count: int, lr: float) -> list[float]:
    """The rates of one of torch's own schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    scheduler, seen = make(optimizer), []
    for number in range(count):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if number < count - 1:
            scheduler.step()
    return seen


FAST = hypothesis.settings(max_examples=25, deadline=None)
RATES = st.floats(1e-5, 1.0)


@FAST
@given(RATES, st.floats(0.0, 0.9), st.integers(1, 8), st.integers(1, 5), st.integers(1, 12))
def test_cosine_and_linear_by_steps_are_torchs(lr, share, whole, steps, epochs):
    floor = share * lr
    flags = {"optimizer.lr": lr, "lr_T_max": whole, "lr_eta_min": floor, "lr_per": "step"}
    count, kinds = epochs * steps, torch.optim.lr_scheduler
    cosine = torchs(lambda o: kinds.CosineAnnealingLR(o, whole * steps, floor), count, lr)
    assert step_rates(epochs, steps, lr_scheduler="cosine", **flags) == pytest.approx(cosine, rel=1e-6)
    linear = torchs(
        lambda o: kinds.LinearLR(o, start_factor=1.0, end_factor=floor / lr, total_iters=whole * steps),
        count,
        lr,
    )
    assert step_rates(epochs, steps, lr_scheduler="linear", **flags) == pytest.approx(linear, rel=1e-6)


@FAST
@given(RATES, st.integers(4, 8), st.integers(1, 12))
def test_one_cycle_is_torchs(lr, steps, epochs):
    kind, count = torch.optim.lr_scheduler.OneCycleLR, epochs * steps
    theirs = torchs(lambda o: kind(o, lr, count, cycle_momentum=False), count, lr)
    seen = step_rates(epochs, steps, lr_scheduler="onecycle", **{"optimizer.lr": lr})
    assert seen == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_a_few_steps_has_a_rate(steps):
    assert all(0 < rate <= 1e-4 for rate in step_rates(1, steps, lr_scheduler="onecycle"))


@FAST
@given(RATES, st.integers(1, 4), st.integers(1, 5), st.floats(0.01, 1.0), st.integers(1, 3))
def test_warm_up_then_step_is_torchs_sequence(lr, warmup, steps, start, every):
    kinds = torch.optim.lr_scheduler

    def make(optimizer: torch.optim.Optimizer) -> Any:
        parts = [
            kinds.LinearLR(optimizer, start_factor=start, total_iters=warmup * steps),
            kinds.StepLR(optimizer, every * steps, 0.5),
        ]
        return kinds.SequentialLR(optimizer, parts, [warmup * steps])

    flags = {
        "lr_warmup": warmup,
        "lr_warmup_start": start,
        "lr_step": every,
        "lr_gamma": 0.5,
        "lr_per": "step",
    }
    seen = step_rates(warmup + 6, steps, lr_scheduler="step", **{"optimizer.lr": lr}, **flags)
    assert seen == pytest.approx(torchs(make, (warmup + 6) * steps, lr), rel=1e-9)


@FAST
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 3), st.booleans())
def test_plateau_is_torchs_on_the_selection_metric(values, patience, higher):
    chosen = settings(lr_scheduler="plateau", lr_patience=patience, lr_gamma=0.5)
    optimizer = build_optimizer(ToyDetector(), chosen)
    schedule = build_schedule(optimizer, chosen, steps=None, higher_is_better=higher)
    other = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1e-4)
    mode = "max" if higher else "min"
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(other, mode=mode, factor=0.5, patience=patience)
    for value in values:
        schedule.epoch_done(value)
        theirs.step(value)
        assert learning_rate(optimizer) == other.param_groups[0]["lr"]
    schedule.epoch_done(None)  # an epoch without a number is none
    assert learning_rate(optimizer) == other.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"lr_scheduler": "plateau", "lr_warmup": 1}, "lr_warmup"),
        ({"lr_scheduler": "onecycle", "lr_warmup": 1}, "lr_warmup"),
        ({"lr_scheduler": "plateau", "select_on": "last"}, "select_on"),
        ({"lr_scheduler": "plateau", "lr_gamma": 1}, "less than 1"),
        ({"lr_warmup": 0.5}, "whole epochs"),
    ],
)
def test_schedules_that_contradict_themselves(flags, words):
    with pytest.raises(UserError, match=words):
        rates(1, **flags)


def test_a_rate_by_steps_that_nobody_knows():
    chosen = settings(lr_scheduler="onecycle")
    with pytest.raises(UserError, match="lr_per epoch"):
        build_schedule(build_optimizer(ToyDetector(), chosen), chosen, steps=None)


SHAPE = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def rates_by_name(**flags: object) -> dict[str, float]:
    chosen = settings(resolution=8, head_width=4, **flags)
    detector = EffortFinetuneDetector(chosen, tower=random_tower(SHAPE))
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    optimizer = build_optimizer(detector, chosen)
    found = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert set(found) == set(detector.trainable.names), "each once"
    assert len(found) == sum(len(g["params"]) for g in optimizer.param_groups)
    return found


def test_rates_of_head_residuals_and_the_rest():
    found = rates_by_name(
        unfreeze=["layer_norm1"],
        **{"optimizer.lr_head": 0.3, "optimizer.lr_residual": 0.2, "optimizer.lr_unfrozen": 0.1},
    )
    for name, rate in found.items():
        kind = "head" if name.startswith("head.") else "residual" if name.endswith("_residual") else "norm"
        assert rate == {"head": 0.3, "residual": 0.2, "norm": 0.1}[kind], name


def test_layers_decay_from_the_head_down():
    found = rates_by_name(tune_mode="full", **{"optimizer.lr": 1.0, "optimizer.layer_decay": 0.5})
    for name, rate in found.items():
        if name.startswith("head.") or "post_layernorm" in name:
            assert rate == 1.0, name
        elif "encoder.layers." in name:
            assert rate == 0.5 ** (3 - int(name.partition("encoder.layers.")[2].partition(".")[0])), name
        else:
            assert rate == 0.5**4, name


def test_a_group_keeps_its_share_of_the_schedule():
    flags = {"optimizer.lr": 1e-2, "optimizer.lr_head": 1e-1, "lr_scheduler": "linear", "lr_T_max": 2}
    model = ToyDetector()
    model.frozen.requires_grad_(True)
    chosen = settings(lr_eta_min=5e-3, **flags)
    optimizer = build_optimizer(model, chosen)
    schedule = build_schedule(optimizer, chosen, steps=None)
    for share in (1.0, 0.75, 0.5, 0.5):
        by_name = {group["name"]: group["lr"] for group in learning_rates(optimizer)}
        assert by_name == pytest.approx({"head": 0.1 * share, "unfrozen": 0.01 * share})
        optimizer.step()
        schedule.epoch_done()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_the_named_optimizer_over_what_learns(kind, expected):
    flags = {"optimizer.type": kind, "optimizer.lr": 0.25, "optimizer.weight_decay": 0.5}
    model = ToyDetector()
    optimizer = build_optimizer(model, settings(**flags))
    assert type(optimizer) is expected
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.25
    assert group["weight_decay"] == 0.5
    assert [id(p) for p in group["params"]] == [id(p) for p in trainable_parameters(model)]
    assert all(p is not model.frozen for p in group["params"])


def test_every_key_of_the_optimizer_arrives():
    adam = {"optimizer.beta1": 0.5, "optimizer.beta2": 0.6, "optimizer.eps": 1e-3, "optimizer.amsgrad": True}
    group = build_optimizer(ToyDetector(), settings(**adam)).param_groups[0]
    assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.5, 0.6), 1e-3, True)
    sgd = build_optimizer(ToyDetector(), settings(**{"optimizer.type": "sgd", "optimizer.momentum": 0.3}))
    assert sgd.param_groups[0]["momentum"] == 0.3


def test_nothing_trainable():
    model = ToyDetector()
    model.requires_grad_(False)
    with pytest.raises(UserError, match="nothing is trainable"):
        build_optimizer(model, settings())


def test_no_schedule_is_a_constant_rate():
    assert rates(3) == [1e-4] * 3


def test_cosine_is_the_closed_form():
    seen = rates(11, lr_scheduler="cosine", lr_T_max=10, lr_eta_min=1e-6)
    expected = [1e-6 + (1e-4 - 1e-6) * (1 + math.cos(math.pi * e / 10)) / 2 for e in range(11)]
    assert seen == pytest.approx(expected, rel=1e-9)


def test_linear_falls_to_the_minimum_and_stays():
    seen = rates(7, lr_scheduler="linear", lr_T_max=4, lr_eta_min=2e-5)
    assert seen == pytest.approx([1e-4, 8e-5, 6e-5, 4e-5, 2e-5, 2e-5, 2e-5])


def test_step_multiplies():
    assert rates(5, lr_scheduler="step", lr_step=2, lr_gamma=0.5) == pytest.approx(
        [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5]
    )


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_rate_that_would_rise_is_refused(kind):
    with pytest.raises(UserError, match="lr_eta_min"):
        rates(1, lr_scheduler=kind, lr_eta_min=1e-3)


@pytest.mark.parametrize(("epochs", "warns"), [(10, False), (11, False), (12, True)])
def test_a_cosine_that_turns_round_is_said(epochs, warns):
    warning = schedule_warning(settings(lr_scheduler="cosine", lr_T_max=10, nEpochs=epochs))
    assert (warning is not None) == warns


@pytest.mark.parametrize("kind", ["cosine", "linear", "step", "onecycle", "plateau"])
def test_schedule_state_goes_on(kind):
    chosen = settings(lr_scheduler=kind, lr_T_max=5, lr_step=1, lr_gamma=0.5, nEpochs=4)
    one, two = (build_optimizer(ToyDetector(), chosen) for _ in range(2))
    first, second = (build_schedule(o, chosen, steps=2) for o in (one, two))
    for value in (0.5, 0.4, 0.3):
        one.step()
        first.step_made()
        first.epoch_done(value)
    two.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    for schedule in (first, second):
        schedule.step_made()
        schedule.epoch_done(0.2)
    assert learning_rate(one) == learning_rate(two)
    assert learning_rate(one) != 1e-4


@FAST
@given(st.integers(0, 10**6))
def test_sam_takes_the_gradient_up_the_slope(seed):
    """One step against the paper's algorithm 1 written out, and the weights are back before it."""
    torch.manual_seed(seed)
    weight, data = torch.randn(5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return (data @ at).exp().mean()

    parameter = torch.nn.Parameter(weight.clone())
    optimizer = SAM([parameter], lr=0.01, momentum=0.0, weight_decay=0.0, rho=0.1)
    loss(parameter).backward()
    with optimizer.ascended():
        loss(parameter).backward()
    assert torch.equal(parameter.detach(), weight)
    optimizer.step()
    at = weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(at), at)
    up = (weight + 0.1 * gradient / gradient.norm()).requires_grad_()
    (higher,) = torch.autograd.grad(loss(up), up)
    torch.testing.assert_close(parameter.detach(), weight - 0.01 * higher, rtol=1e-9, atol=1e-12)


def test_sam_puts_the_weights_back_whatever_happens():
    parameter = torch.nn.Parameter(torch.tensor([0.1, 0.2]))
    optimizer = SAM([parameter], lr=1.0, rho=0.3)
    (parameter**2).sum().backward()
    before = parameter.detach().clone()

    def interrupted() -> None:
        with optimizer.ascended():
            assert not torch.equal(parameter.detach(), before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(parameter.detach(), before)


def test_the_average_is_the_recursion_and_the_weights_come_back():
    model = ToyDetector()
    average = WeightAverage(model, ["head.weight", "head.bias"], 0.9)
    expected = model.head.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            model.head.weight.add_(0.1 * (step % 7))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.head.weight.detach()
    live = model.head.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.head.weight.detach(), expected)
    assert torch.equal(model.head.weight.detach(), live)
