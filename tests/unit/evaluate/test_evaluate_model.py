"""A detector measured on datasets of the embedded host."""

from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.evaluate.dataset_results import higher_is_better, parse_metric
from effort_finetune.evaluate.evaluation import EvaluationFailure, evaluate_model
from effort_finetune.evaluate.evaluation_inputs import open_datasets


def test_every_number_follows_from_the_score_file(bench, detector, tmp_path):
    bench.write("ToyA", videos=5)
    results = evaluate_model(detector, bench.host, bench.settings(), ["ToyA"], output_dir=tmp_path)
    result = results.datasets["ToyA"]
    with (tmp_path / "scores" / "ToyA.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    label = [int(row["label"]) for row in rows]
    prob = [float(row["prob"]) for row in rows]
    assert len(rows) == result.block["counts"]["frames_scored"] == 30
    assert result.block["frame"]["auc"] == roc_auc_score(label, prob)
    videos: dict[str, list[float]] = {}
    for row in rows:
        videos.setdefault(row["video"], []).append(float(row["prob"]))
    assert len(videos) == result.block["counts"]["videos_scored"] == 10
    assert result.block["video"]["auc"] == pytest.approx(
        roc_auc_score(["Fake" in name for name in videos], [np.mean(p) for p in videos.values()])
    )
    # Bright pictures are fakes, and the detector answers with brightness.
    assert result.metric("video_auc") > 0.9


def test_the_hosts_numbers_stand_beside_ours_and_change_nothing(bench, detector):
    bench.write("ToyA")
    block = evaluate_model(detector, bench.host, bench.settings(), ["ToyA"]).datasets["ToyA"].block
    host = block["host_metrics"]["values"]
    for name in ("auc", "ap", "acc"):
        assert host[name] == pytest.approx(block["frame"][name])
    assert block["counts"]["videos_scored"] == 8


def test_a_host_that_raises_is_a_reason(bench, detector, monkeypatch):
    bench.write("ToyA")
    monkeypatch.setattr(type(bench.host), "get_test_metrics", lambda *a, **k: 1 / 0)
    block = evaluate_model(detector, bench.host, bench.settings(), ["ToyA"]).datasets["ToyA"].block
    assert block["host_metrics"]["values"] is None
    assert "ZeroDivisionError" in block["host_metrics"]["null_reasons"]["get_test_metrics"]
    assert block["status"] == "complete"


def test_what_a_host_prints_warns_or_cannot_compute(bench, detector, monkeypatch, capsys, recwarn):
    def noisy(self, y_pred, y_true, img_names):
        print("shape of everything")
        warnings.warn("no positive samples", stacklevel=1)
        y_true[:] = 7
        return {
            "auc": np.float32(0.5),
            "video_auc": float("nan"),
            "pred": y_pred,
            "label": y_true,
            "note": "x",
        }

    bench.write("ToyA")
    monkeypatch.setattr(type(bench.host), "get_test_metrics", noisy)
    result = evaluate_model(detector, bench.host, bench.settings(), ["ToyA"]).datasets["ToyA"]
    assert result.block["host_metrics"] == {
        "values": {"auc": 0.5, "video_auc": None},
        "null_reasons": {"video_auc": "the host returned nan"},
    }
    assert set(result.scores.label.tolist()) == {0, 1}
    assert capsys.readouterr().out == ""
    assert not [w for w in recwarn if "no positive" in str(w.message)]


def test_a_score_that_is_no_number_is_never_a_complete_measurement(bench, detector, tmp_path):
    bench.write("ToyA")
    with torch.no_grad():
        detector.scale.fill_(float("nan"))
    with pytest.raises(EvaluationFailure, match=r"24 of 24 scores of ToyA are not finite, first .*000"):
        evaluate_model(detector, bench.host, bench.settings(), ["ToyA"], output_dir=tmp_path)
    assert (tmp_path / "scores" / "ToyA.csv").is_file(), "what there is can be looked at"


def test_one_class_gives_null_and_the_run_goes_on(bench, detector):
    bench.write("ToyA", groups=["Toy_Real"])
    bench.write("ToyB")
    results = evaluate_model(detector, bench.host, bench.settings(), ["ToyA", "ToyB"])
    assert results.datasets["ToyA"].metric("video_auc") is None
    assert results.datasets["ToyA"].block["video"]["null_reasons"]["auc"] == "no fake samples"
    assert results.datasets["ToyB"].metric("video_auc") is not None
    assert results.metric("video_auc") is None
    assert results.average()["video"]["null_reasons"]["auc"] == "no value for ToyA"


def test_a_mean_over_fewer_datasets_than_asked_for_is_none(bench, detector):
    bench.write("ToyA")
    results = evaluate_model(detector, bench.host, bench.settings(), ["ToyA"])
    assert results.average(["ToyA"])["video"]["auc"] == results.metric("video_auc")
    partial = results.average(["ToyA", "Failed"])["video"]
    assert partial["auc"] is None
    assert partial["null_reasons"]["auc"] == "no value for Failed"


def test_a_missing_frame_is_counted_listed_and_not_replaced(bench, detector):
    paths = bench.write("ToyA", missing=[1, 13])
    settings = bench.settings(max_missing_rate=0.2)
    result = evaluate_model(detector, bench.host, settings, ["ToyA"]).datasets["ToyA"]
    assert result.block["missing"] == [paths[1], paths[13]]
    counts = result.block["counts"]
    assert (counts["frames_listed"], counts["frames_scored"], counts["frames_missing"]) == (24, 22, 2)
    assert counts["frames_used_per_video"]["min"] == 2
    scored = {result.dataset.rows[i].path for i in result.scores.index}
    assert scored == set(paths) - {paths[1], paths[13]}


def test_too_many_missing_frames_fail_the_run_after_counting(bench, detector):
    bench.write("ToyA")
    bench.write("ToyB", missing=[0, 1, 2])
    bench.write("ToyC")
    with pytest.raises(EvaluationFailure, match=r"3 of 24 test frames of ToyB.*12.50%") as caught:
        evaluate_model(detector, bench.host, bench.settings(), ["ToyA", "ToyB", "ToyC"])
    done = caught.value.results.datasets
    assert list(done) == ["ToyA", "ToyB"]
    assert done["ToyA"].block["status"] == "complete"
    assert done["ToyB"].block["status"] == "failed"
    assert len(done["ToyB"].block["missing"]) == 3
    assert done["ToyB"].block["video"] is None


def test_a_crash_keeps_the_datasets_before_it(bench):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.calls = 0

        def forward(self, data_dict, inference=False):
            self.calls += 1
            if self.calls > 4:
                raise RuntimeError("a device fault")
            return {"cls": self.weight.expand(len(data_dict["label"]), 2)}

    bench.write("ToyA")
    bench.write("ToyB")
    with pytest.raises(EvaluationFailure, match="ToyB failed: RuntimeError: a device fault") as caught:
        evaluate_model(Fails(), bench.host, bench.settings(), ["ToyA", "ToyB"])
    assert list(caught.value.results.datasets) == ["ToyA"]


def test_every_unknown_dataset_is_told_before_the_first_is_scored(bench, detector):
    bench.write("ToyA")
    with pytest.raises(UserErrors) as caught:
        evaluate_model(detector, bench.host, bench.settings(), ["ToyA", "ToyX", "ToyY"])
    assert len(caught.value.errors) == 2
    assert detector.batches == []
    with pytest.raises(UserError, match="at least one dataset"):
        open_datasets(bench.host, bench.settings(), [], "test")


def of_leakage(block):
    return [line for line in block["warnings"] if "split too" in line]


def test_shared_videos_are_a_warning(bench, detector):
    bench.write("ToyA", shared=True)
    block = evaluate_model(detector, bench.host, bench.settings(), ["ToyA"]).datasets["ToyA"].block
    assert of_leakage(block) == [
        "8 of 8 test videos of ToyA are in its train split too: the numbers hold training data",
        "8 of 8 test videos of ToyA are in its val split too: selection on val has seen these videos",
    ]


def test_frames_of_another_split_under_another_video_name_are_a_warning(bench, detector):
    bench.write("ToyA", videos=1)
    path = bench.root / "json" / "ToyA.json"
    index = json.loads(path.read_text())
    for splits in index["ToyA"].values():
        splits["train"] = {"renamed": next(iter(splits["test"].values()))}
    path.write_text(json.dumps(index))
    block = evaluate_model(detector, bench.host, bench.settings(), ["ToyA"]).datasets["ToyA"].block
    assert of_leakage(block) == [
        "6 test frames, in videos of other names, of ToyA are in its train split too: "
        "the numbers hold training data"
    ]


def test_datasets_opened_before_are_used_again(bench, detector):
    bench.write("ToyA")
    settings = bench.settings()
    opened = open_datasets(bench.host, settings, ["ToyA"], "val")
    first, second = (
        evaluate_model(
            detector, bench.host, settings, ["ToyA"], "val", datasets=opened, bootstrap_samples=0
        ).datasets["ToyA"]
        for _ in range(2)
    )
    assert np.array_equal(first.scores.prob, second.scores.prob)
    assert first.block["split"] == "val"
    assert set(first.block["video"]["ci95"]["null_reasons"].values()) >= {"bootstrap_samples is 0"}


def test_workers_and_batch_size_change_no_score(bench, detector):
    bench.write("ToyA", missing=[4])
    settings = bench.settings(max_missing_rate=1.0)
    scores = [
        evaluate_model(
            detector,
            bench.host,
            settings.changed(workers=workers, test_batchSize=size),
            ["ToyA"],
            bootstrap_samples=0,
        )
        .datasets["ToyA"]
        .scores
        for workers, size in ((0, 24), (2, 5))
    ]
    assert np.array_equal(scores[0].index, scores[1].index)
    assert scores[0].logit == pytest.approx(scores[1].logit, abs=1e-6)
    assert scores[0].missing == scores[1].missing == [4]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auc", ("frame", "auc")),
        ("frame_auc", ("frame", "auc")),
        ("video_tpr_at_fpr_1pct", ("video", "tpr_at_fpr_1pct")),
        ("acc_real", ("frame", "acc_real")),
        ("loss", ("frame", "loss")),
    ],
)
def test_names_of_metrics(name, expected):
    assert parse_metric(name) == expected


def test_an_unknown_metric_is_a_user_error_that_suggests():
    with pytest.raises(UserError, match="did you mean 'video_auc'"):
        parse_metric("video_auk")


@pytest.mark.parametrize(("name", "expected"), [("video_auc", True), ("eer", False), ("loss", False)])
def test_direction_of_metrics(name, expected):
    assert higher_is_better(name) is expected
