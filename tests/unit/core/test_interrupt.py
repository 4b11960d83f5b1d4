"""Asked to stop: the first signal waits for a safe point, the second does not."""

from __future__ import annotations

import os
import signal
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from effort_finetune.core.interrupt import Interrupted, InterruptGuard
from effort_finetune.evaluate.predictions import score


class Constant(nn.Module):
    def forward(self, data_dict: dict[str, Any], inference: bool = False) -> dict[str, torch.Tensor]:
        return {"cls": torch.zeros(len(data_dict["label"]), 2)}


class Dying:
    """Something to refer to weakly."""


def interrupted_in_a_callback(signals: int) -> None:
    """Sends the signals where Python drops what a handler raises: in a weak reference's callback."""
    thing = Dying()
    reference = weakref.ref(thing, lambda _: [os.kill(os.getpid(), signal.SIGINT) for _ in range(signals)])
    del thing
    assert reference() is None


def batches(seen: list[int]) -> Iterator[dict[str, Any]]:
    for number in range(5):
        seen.append(number)
        if number == 2:
            interrupted_in_a_callback(signals=1)
        yield {"index": torch.tensor([number]), "label": torch.tensor([0]), "image": torch.zeros(1, 3, 2, 2)}


def test_a_signal_in_a_callback_is_neither_lost_nor_printed(monkeypatch):
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    seen: list[int] = []
    with InterruptGuard() as guard, pytest.raises(Interrupted):
        score(Constant(), batches(seen), device="cpu", should_stop=guard)
    assert seen == [0, 1, 2], "the batch after the signal is not scored"
    assert dropped == []


@pytest.mark.parametrize("number", InterruptGuard.SIGNALS)
def test_each_signal_asks_and_only_a_second_ctrl_c_raises(number):
    before = signal.getsignal(number)
    with InterruptGuard() as guard:
        os.kill(os.getpid(), number)
        assert guard()
        assert guard.reason == signal.Signals(number).name
        for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # a scheduler sends several
            os.kill(os.getpid(), other)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert guard.reason == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_a_run_under_nohup_outlives_its_terminal(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with InterruptGuard() as guard:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not guard()
    finally:
        signal.signal(signal.SIGHUP, before)
