"""A saved state fits its model whole, or is refused."""

from __future__ import annotations

import pytest
import torch

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.train.resuming import check_settings, restore


def _restore(changing):
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    saved = {
        "changing": changing,
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "scaler": scaler.state_dict(),
    }
    restore(saved, model, optimizer, schedule, scaler)
    return model


def test_what_is_frozen_need_not_be_in_the_state():
    assert torch.equal(_restore({"weight": torch.ones(2, 2)}).weight, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("changing", "words"),
    [({}, "no weights for weight"), ({"weight": torch.ones(2, 2), "x": torch.ones(1)}, "unknown weights x")],
)
def test_what_is_trained_has_to_be_there_and_nothing_else(changing, words):
    with pytest.raises(UserError, match=words):
        _restore(changing)


@pytest.mark.parametrize("key", ["group_weights", "group_quotas"])
def test_a_setting_that_is_a_mapping_has_to_be_the_same_whole(key):
    with_it, without = (Settings(balance="group", **{key: value}).to_dict() for value in ({"A": 2}, {}))
    check_settings(with_it, with_it)
    for saved, now in ((with_it, without), (without, with_it)):
        with pytest.raises(UserError, match=key):
            check_settings(saved, now)


def test_labels_may_be_added():
    """A further test dataset brings its own; the frames that train have a hash."""
    check_settings(Settings(label_dict={"A": 0}).to_dict(), Settings(label_dict={"A": 0, "B": 1}).to_dict())
    with pytest.raises(UserError, match=r"label_dict\.A 1 instead of 0"):
        check_settings(Settings(label_dict={"A": 0}).to_dict(), Settings(label_dict={"A": 1}).to_dict())
