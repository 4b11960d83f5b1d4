"""Running a detector over batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from effort_finetune.core.errors import RunFailure
from effort_finetune.evaluate.predictions import cross_entropy, probability, score

from .conftest import batch


def test_scores_are_sorted_by_index_and_hold_every_readable_frame(detector):
    loader = [batch([2.0, -1.0], [1, 0], [3, 0], missing=[4]), batch([0.5], [1], [2], missing=[1])]
    scores = score(detector, loader, device="cpu")
    assert scores.index.tolist() == [0, 2, 3]
    assert scores.logit.tolist() == [-1.0, 0.5, 2.0]
    assert scores.label.tolist() == [0, 1, 1]
    assert scores.missing == [1, 4]
    assert scores.prob == pytest.approx(1 / (1 + np.exp(-scores.logit)), abs=1e-15)


def test_the_detector_gets_the_hosts_batch_without_gradients(detector):
    score(detector, [batch([1.0], [1], [0])], device="cpu")
    (call,) = detector.batches
    assert {"image", "label", "landmark", "mask"} <= call["keys"]
    assert call["inference"] is True
    assert call["grad"] is False


def test_a_batch_without_readable_frames_never_reaches_the_detector(detector):
    scores = score(detector, [batch([], [], [], missing=[0, 1])], device="cpu")
    assert detector.batches == []
    assert scores.missing == [0, 1]
    assert len(scores.prob) == 0
    assert scores.loss == {"overall": None, "real": None, "fake": None}


@pytest.mark.parametrize("training", [True, False])
def test_the_model_returns_to_its_mode_also_after_an_error(detector, training):
    detector.train(training)
    score(detector, [batch([1.0], [1], [0])], device="cpu")
    assert detector.training is training
    with pytest.raises(KeyError):
        score(detector, [{"index": torch.tensor([0])}], device="cpu")
    assert detector.training is training


def test_the_model_runs_in_eval_mode():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.9)
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, data_dict, inference=False):
            return {"cls": self.drop(torch.ones(len(data_dict["label"]), 2)) * torch.tensor([0.0, 1.0])}

    scores = score(Noisy().train(), [batch([1.0] * 50, [1] * 50, range(50))], device="cpu")
    assert scores.logit.tolist() == [1.0] * 50


def test_a_hosts_method_number_counts_as_fake(detector):
    scores = score(detector, [batch([1.0, 1.0], [4, 0], [0, 1])], device="cpu")
    assert scores.label.tolist() == [1, 0]


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_a_batch_that_does_not_fit_into_memory_is_scored_in_pieces(detector, caplog, room):
    """A size that fits stays for the batches after it; where one frame does not fit, that is said."""

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.tried = []

        def forward(self, data_dict, inference=False):
            self.tried.append(len(data_dict["label"]))
            if self.tried[-1] > room:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")
            return detector(data_dict, inference)

    model, values = Narrow(), np.linspace(-3, 3, 14)
    loader = [
        batch(values[:7], [0, 1, 0, 1, 0, 1, 0], range(7), missing=[14]),
        batch(values[7:], [1] * 7, range(7, 14)),
    ]
    if room == 0:
        with pytest.raises(RunFailure, match="ran out of memory on one frame"):
            score(model, loader, device="cpu")
        return
    scores = score(model, loader, device="cpu")
    assert scores.logit == pytest.approx(values, abs=1e-6)
    assert scores.index.tolist() == list(range(14))
    assert scores.label.tolist() == [0, 1, 0, 1, 0, 1, 0, *[1] * 7]
    assert scores.missing == [14]
    first, *_ = caplog.messages
    assert first.startswith("7 frames at once did not fit")
    assert max(model.tried[model.tried.index(room if room < 3 else 2) :]) <= room


def test_one_logit_is_refused():
    class OneLogit(nn.Module):
        def forward(self, data_dict, inference=False):
            return {"cls": torch.zeros(len(data_dict["label"]), 1)}

    with pytest.raises(ValueError, match=r"\[B, 2\]"):
        score(OneLogit(), [batch([1.0], [1], [0])], device="cpu")


def test_autocast_reaches_the_detector():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 2)
            self.dtype = None

        def forward(self, data_dict, inference=False):
            cls = self.linear(data_dict["image"].flatten(1))
            self.dtype = cls.dtype
            return {"cls": cls}

    model = Linear()
    score(model, [batch([1.0], [1], [0])], device="cpu", autocast=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    score(model, [batch([1.0], [1], [0])], device="cpu", autocast=None)
    assert model.dtype == torch.float32


@given(st.floats(-1e4, 1e4))
def test_probability_is_the_softmax_in_float64(logit):
    expected = torch.softmax(torch.tensor([0.0, logit], dtype=torch.float64), 0)[1].item()
    assert probability(np.array([logit]))[0] == pytest.approx(expected, rel=1e-12, abs=1e-300)


@given(st.lists(st.tuples(st.floats(-50, 50), st.integers(0, 1)), min_size=1, max_size=20))
def test_the_loss_is_torchs_cross_entropy_over_all_real_and_fake_frames(frames):
    logit, label = (np.array(column) for column in zip(*frames, strict=True))
    label = label.astype(np.int64)
    logits = torch.stack(
        [torch.zeros(len(logit), dtype=torch.float64), torch.from_numpy(logit.astype(float))], 1
    )
    per_frame = nn.functional.cross_entropy(logits, torch.from_numpy(label), reduction="none").numpy()
    loss = cross_entropy(logit.astype(float), label)
    assert loss["overall"] == pytest.approx(per_frame.mean(), rel=1e-9, abs=1e-15)
    for name, value in (("real", 0), ("fake", 1)):
        if (label == value).any():
            assert loss[name] == pytest.approx(per_frame[label == value].mean(), rel=1e-9, abs=1e-15)
        else:
            assert loss[name] is None


def test_a_logit_that_is_not_finite_is_no_warning_of_numpy(recwarn):
    assert cross_entropy(np.array([np.nan, 1.0]), np.array([0, 1]))["real"] is None
    assert not recwarn.list
