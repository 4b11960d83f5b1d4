"""``model_name`` is obeyed: the embedded host's MesoNet is scored, and nothing else under its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.data.frames import open_frames
from effort_finetune.evaluate import evaluation
from effort_finetune.evaluate.predictions import log_odds, probability
from effort_finetune.host.own_detectors import build_detector

from .bench import SIZE, Bench

MESO = {
    "model_name": "meso4",
    "backbone_name": "meso4",
    "backbone_config": {"num_classes": 2, "inc": 3},
    "loss_func": "cross_entropy",
}


@pytest.fixture
def weights(bench: Bench, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = build_detector(bench.host, "meso4", {**MESO, "resolution": SIZE}, pretrained=False)
    path = tmp_path / "meso4.pth"
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, path)
    return path


def run(bench: Bench, weights: Path | None, folder: Path, **flags: object) -> dict:
    settings = bench.settings(test_dataset=["ToyA"], **{"head_width": None, **flags})
    path = evaluation.evaluate(settings, bench.host, weights=weights, output_dir=folder)
    return json.loads(path.read_text())


def test_a_hosts_detector_is_scored_through_our_frames(bench: Bench, weights: Path, tmp_path: Path) -> None:
    bench.write("ToyA")
    document = run(bench, weights, tmp_path / "out", **MESO)
    assert document["settings"]["model_name"] == "meso4"
    assert document["checkpoint"]["detector"] == "meso4"
    assert document["checkpoint"]["layout"] == "host detector"
    assert document["checkpoint"]["wrappers"] == ["ddp"]
    model = build_detector(bench.host, "meso4", {**MESO, "resolution": SIZE}, pretrained=False)
    model.load_state_dict({k.removeprefix("module."): v for k, v in torch.load(weights).items()})
    model.eval()
    frames = open_frames(bench.host, bench.settings(), split="test", names=["ToyA"])
    with torch.no_grad():
        own = [float(model({"image": frames[i]["image"][None]})["prob"]) for i in range(len(frames))]
    lines = (tmp_path / "out/scores/ToyA.csv").read_text().splitlines()
    column = lines[0].split(",").index("prob")
    assert [float(line.split(",")[column]) for line in lines[1:]] == pytest.approx(own, abs=1e-6)


def test_weights_of_another_model_and_no_weights_are_refused(
    bench: Bench, weights: Path, checkpoint: Path, tmp_path: Path
) -> None:
    bench.write("ToyA")
    with pytest.raises(UserError, match=r"keys missing .* keys unexpected .*detector 'meso4'"):
        run(bench, checkpoint, tmp_path / "out", **MESO)
    with pytest.raises(UserError, match="no file"):
        run(bench, None, tmp_path / "out", **MESO)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"model_name": "xception"}, "'xception', which .* does not register"),
        ({"model_name": "host:effort"}, "'effort', which .* does not register"),
        ({"trainer": "foo"}, "trainer; got 'foo'"),
        ({**MESO, "residual_rank": 4}, "residual_rank; got a value for 'meso4'"),
        ({**MESO, "tune_mode": "head"}, "tune_mode; got a value for 'meso4'"),
    ],
)
def test_what_is_not_run_is_not_recorded(
    bench: Bench, weights: Path, tmp_path: Path, flags: dict, words: str
) -> None:
    with pytest.raises(UserError, match=words):  # before the dataset, which is not there
        run(bench, weights, tmp_path / "out", **flags)


def test_effort_means_our_detector_and_says_so(bench: Bench, checkpoint: Path, tmp_path: Path) -> None:
    bench.write("ToyA")
    document = run(bench, checkpoint, tmp_path / "out", model_name="effort", head_width=16)
    assert document["settings"]["model_name"] == document["checkpoint"]["detector"] == "effort_finetune"
    assert document["checkpoint"]["asked_for"] == "effort"
    assert "model_name effort means effort_finetune" in (tmp_path / "out/evaluation.log").read_text()


def test_whatever_stops_the_scoring_leaves_results(
    bench: Bench, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("ToyA")
    monkeypatch.setattr(evaluation.table, "summary_line", lambda block: 1 // 0)
    with pytest.raises(RunFailure, match="ZeroDivisionError"):
        run(bench, checkpoint, tmp_path / "out", head_width=16)
    document = json.loads((tmp_path / "out/results.json").read_text())
    assert document["status"] == "failed"
    assert "ZeroDivisionError" in document["reason"]
    assert document["datasets"]["ToyA"]["status"] == "complete"


def test_probabilities_count_where_they_are_not_the_softmax_of_the_logits() -> None:
    logits, prob = torch.tensor([[0.0, 2.0], [1.0, -1.0]]), torch.tensor([0.25, 0.75])
    softmax = torch.softmax(logits, 1)[:, 1]
    assert log_odds({"cls": logits}, 2).tolist() == [2.0, -2.0]
    assert log_odds({"cls": logits, "prob": softmax}, 2).tolist() == [2.0, -2.0]
    for prediction in ({"cls": logits, "prob": prob}, {"cls": logits[:, :1], "prob": prob}, {"prob": prob}):
        assert np.allclose(probability(log_odds(prediction, 2)), prob.numpy(), atol=1e-7)
    with pytest.raises(ValueError, match="logits"):
        log_odds({"cls": logits[:, :1]}, 2)
