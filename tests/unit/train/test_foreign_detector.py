"""The engine trains a host's own detector: resumable, loadable by the host, recorded by its name."""

from __future__ import annotations

import json

import pytest
import torch

from effort_finetune.core.errors import RunFailure
from effort_finetune.host.own_detectors import build_detector
from effort_finetune.train import engine

from .running import run

MESO = {
    "model_name": "meso4",
    "head_width": None,
    "backbone_name": "meso4",
    "backbone_config": {"num_classes": 2, "inc": 3},
    "loss_func": "cross_entropy",
    "workers": 0,
}


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_run_resumed_goes_to_the_same_bits_and_the_host_loads_it(bench, tmp_path, monkeypatch):
    whole = run(bench, **MESO, output_dir=str(tmp_path / "whole"))
    settle = engine.Engine._settle

    def stops(self, epoch, *rest):
        if epoch == 1:
            raise RunFailure("stopped")
        settle(self, epoch, *rest)

    monkeypatch.setattr(engine.Engine, "_settle", stops)
    with pytest.raises(RunFailure):
        run(bench, **MESO, output_dir=str(tmp_path / "half"))
    monkeypatch.undo()
    half = run(bench, **MESO, resume=str(tmp_path / "half"))
    states = [torch.load(o.best_path, weights_only=True) for o in (whole, half)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    document = results(whole.run_dir)
    checkpoint = document["checkpoint"]
    assert (checkpoint["detector"], checkpoint["asked_for"]) == ("meso4", "meso4")
    assert checkpoint["layout"] == "host detector"
    assert document["datasets"].keys() == results(half.run_dir)["datasets"].keys()
    assert document["training"]["decomposition"]["layers"] == 0
    assert 0 < document["training"]["trainable"]["share"] <= 1
    config = {**document["settings"], **MESO}
    build_detector(bench.host, "meso4", config, pretrained=False).load_state_dict(states[0], strict=True)


def test_ours_records_what_was_asked_for(bench, tmp_path):
    outcome = run(bench, model_name="effort", nEpochs=1, output_dir=str(tmp_path / "ours"))
    checkpoint = results(outcome.run_dir)["checkpoint"]
    assert (checkpoint["detector"], checkpoint["asked_for"]) == ("effort_finetune", "effort")
