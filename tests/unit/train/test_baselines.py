"""Every baseline is a run like any other: it goes on to the bit, and leaves weights that load strictly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effort_finetune.data import self_blended_frames
from effort_finetune.data.face_finder import Face
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.finetuning import finetune
from effort_finetune.weights import run_state
from effort_finetune.weights.run_state import load_last

from .conftest import COMMAND
from .running import document, quick
from .test_resume import RUN, assert_equal, stopped_run, weights, whole_run

MODES = ("layernorm", "bitfit", "lora", "dora", "osf", "full")
LORA = {"lora.rank": 2, "lora.dropout": 0.2}


@pytest.mark.parametrize("mode", MODES)
def test_it_goes_on_to_the_bit_and_its_weights_are_in_deepfakebenchs_layout(bench, monkeypatch, mode):
    flags = {"tune_mode": mode, **(LORA if mode in ("lora", "dora") else {})}
    whole = whole_run(bench, **flags)
    stopped = stopped_run(bench, monkeypatch, steps=4, **flags)
    settings = bench.settings(**{**RUN, **flags}, resume=str(stopped), output_dir=None, save_to=None)
    finetune(settings, bench.host, command=COMMAND)
    left, right = load_last(whole), load_last(stopped)
    for key in left.keys() - {"settings", "processes"}:
        assert_equal(left[key], right[key], key)
    best = weights(whole / "ckpt_best.pth")
    assert_equal(best, weights(stopped / "ckpt_best.pth"))

    plain = EffortFinetuneDetector(bench.settings())
    assert list(best) == list(plain.state_dict())
    started = plain.state_dict()
    assert any(not torch.equal(best[key], started[key]) for key in best if key.startswith("backbone."))
    plain.load_state_dict(best, strict=True)
    (whole / "ckpt_best.pth").unlink()  # as of a run that was killed: put together from its state
    assert_equal(dict(weights(run_state.finish(whole)[0])), dict(best))


def test_an_epoch_of_lora_writes_what_it_trains(bench):
    """The frozen part is written once: an epoch's file holds weights, a copy of the best and two moments."""
    outcome = quick(bench, tune_mode="lora", test_dataset=["Toy"], **LORA)
    record = document(outcome)["training"]["trainable"]
    assert record["by_group"].keys() == {"head", "lora"}
    assert set(load_last(outcome.last_path)["changing"]) == {
        name
        for name in load_last(outcome.last_path)["changing"]
        if "lora_" in name or name.startswith("head.")
    }
    assert outcome.last_path.stat().st_size < 4 * 4 * record["trainable"] + 300_000
    assert document(outcome)["datasets"]["Toy"]["video"]["auc"] is not None


def test_balance_quotas_and_hard_examples_go_on_to_the_bit_and_are_on_record(bench, monkeypatch):
    flags = {"balance": "group", "group_quotas": {"Toy_Fake": 7}, "hard_examples": 0.4}
    whole = whole_run(bench, **flags)
    stopped = stopped_run(bench, monkeypatch, steps=4, **flags)
    settings = bench.settings(**{**RUN, **flags}, resume=str(stopped), output_dir=None, save_to=None)
    outcome = finetune(settings, bench.host, command=COMMAND)
    left, right = load_last(whole), load_last(stopped)
    for key in left.keys() - {"settings", "processes"}:
        assert_equal(left[key], right[key], key)
    assert not torch.equal(left["hard_examples"]["known"], left["hard_examples"]["known"].mean().expand(24))
    sampling = document(outcome)["training"]["data"]["sampling"]
    assert sampling == {
        "epoch": [
            {"name": "Toy: Toy_Real", "frames": 12, "drawn": 12},
            {"name": "Toy: Toy_Fake", "frames": 12, "drawn": 7},
        ],
        "hard_examples": 0.4,
    }
    assert [epoch["train"]["samples"] for epoch in document(outcome)["training"]["history"]] == [19, 19, 19]
    assert "an epoch takes 7 of 12 frames of Toy: Toy_Fake" in (stopped / "finetuning.log").read_text()


class _SameFace:
    """Stands for dlib: one face in every picture."""

    name = "dlib68"

    def make(self) -> _SameFace:
        return self

    def find(self, images: list[np.ndarray]) -> list[list[Face]]:
        turn = np.linspace(0, 6, 68)
        points = 16 + 10 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        return [[Face((5, 5, 27, 27), 1.0, points[:5], points)] for _ in images]


def test_self_blended_faces_are_trained_on_and_on_record(bench, monkeypatch):
    monkeypatch.setattr(self_blended_frames, "choose_finder", lambda name, folders: _SameFace())
    flags = {"self_blended": 0.5, "balance": "group", "group_weights": {"self-blended": 2}}
    data = document(quick(bench, use_data_augmentation=True, **flags))["training"]["data"]
    assert (data["frames"], data["frames_real"], data["frames_fake"]) == (30, 12, 18)
    assert data["protocol"]["self_blended"]["found_landmarks"] == 6
    assert [(unit["name"], unit["frames"], unit["drawn"]) for unit in data["sampling"]["epoch"]] == [
        ("Toy: Toy_Real", 12, 15),
        ("Toy: Toy_Fake", 12, 5),
        ("Toy: self-blended", 6, 10),
    ]
