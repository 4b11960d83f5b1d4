from __future__ import annotations

import math

import pytest
import torch

from effort_finetune.config import Settings, resolve
from effort_finetune.core.errors import UserError
from effort_finetune.train.optim import build_optimizer, learning_rate, trainable_parameters
from effort_finetune.train.schedule import advance, build_scheduler, schedule_warning

from .toys import ToyDetector


def settings(**flags: object) -> Settings:
    return resolve(flags=flags, yaml_path=None, host_defaults={})


def rates(epochs: int, **flags: object) -> list[float]:
    chosen = settings(**flags)
    optimizer = build_optimizer(ToyDetector(), chosen)
    scheduler = build_scheduler(optimizer, chosen)
    seen = []
    for _ in range(epochs):
        seen.append(learning_rate(optimizer))
        optimizer.step()
        advance(scheduler)
    return seen


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


def test_schedule_state_goes_on():
    chosen = settings(lr_scheduler="cosine", lr_T_max=5)
    one, two = (build_optimizer(ToyDetector(), chosen) for _ in range(2))
    first, second = build_scheduler(one, chosen), build_scheduler(two, chosen)
    for _ in range(2):
        one.step()
        advance(first)
    two.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    for scheduler in (first, second):
        advance(scheduler)
    assert learning_rate(one) == learning_rate(two)
