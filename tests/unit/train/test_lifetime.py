"""When a run is over its model and its loader's processes are gone, without the garbage collector's help."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from effort_finetune.core.errors import RunFailure
from effort_finetune.train import setup
from effort_finetune.train.finetuning import finetune
from effort_finetune.train.loop import TrainingLoop

from .conftest import COMMAND, Bench


@pytest.fixture
def made(monkeypatch) -> Iterator[list[weakref.ref[Any]]]:
    """Weak references to the loaders and models that runs make while nothing collects cycles."""
    references: list[weakref.ref[Any]] = []

    def noting(function: Any, part: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            references.append(weakref.ref(part(result)))
            return result

        return call

    monkeypatch.setattr(setup, "open_data", noting(setup.open_data, lambda data: data.loader))
    monkeypatch.setattr(setup, "build_model", noting(setup.build_model, lambda model: model))
    gc.collect()
    gc.disable()
    yield references
    gc.enable()


def test_after_a_run(bench: Bench, made):
    finetune(bench.settings(nEpochs=1, save_to=None), bench.host, command=COMMAND)
    assert [reference() for reference in made] == [None, None]


def test_after_a_run_that_was_stopped(bench: Bench, made, monkeypatch):
    def stopped(self: TrainingLoop, *args: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "_step", stopped)
    with pytest.raises(RunFailure, match="interrupted"):
        finetune(bench.settings(save_to=None), bench.host, command=COMMAND)
    assert [reference() for reference in made] == [None, None]
