"""Robustness: the curve's numbers against scikit-learn, what it leaves out, and its place in the results."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from effort_finetune.cli.evaluate import add_arguments
from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.data.corruptions import choose_corruptions
from effort_finetune.evaluate import results
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.robustness import measured
from effort_finetune.evaluate.robustness_table import robustness_table
from effort_finetune.evaluate.video import VideoScores


def _videos(prob: np.ndarray, label: np.ndarray) -> VideoScores:
    size = len(label)
    return VideoScores(tuple(map(str, range(size))), label, prob, np.ones(size, int), np.arange(size))


def test_the_curve_is_scikit_learns():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 20)
    base = rng.normal(label, 1)
    raw, *curve = (1 / (1 + np.exp(-base - rng.normal(0, s, 40))) for s in (0, 0.5, 1, 2, 3, 4))
    block = measured("jpeg", _videos(raw, label), [_videos(p, label) for p in curve], Settings())
    aucs = [roc_auc_score(label, prob) for prob in (raw, *curve)]
    assert block["auc_raw"] == pytest.approx(aucs[0])
    assert [p["auc"] for p in block["levels"]] == pytest.approx(aucs[1:])
    relative = [(auc - aucs[0]) / aucs[0] for auc in aucs[1:]]
    assert block["mean_relative_drop"] == pytest.approx(np.mean(relative))
    low, high = block["mean_relative_drop_ci95"]
    assert low < block["mean_relative_drop"] < high
    for point, prob in zip(block["levels"], curve, strict=True):
        flips = point["flips"]
        assert flips["to_fake"] == np.sum((raw <= 0.5) & (prob > 0.5))
        assert flips["share"] == np.mean((raw > 0.5) != (prob > 0.5))
        assert point["auc_ci95"][0] < point["auc"] < point["auc_ci95"][1]


def test_results_hold_it_and_the_dataset_itself_is_unchanged(bench, checkpoint, tmp_path):
    bench.write("UADFV")
    plain = bench.settings(test_dataset=["UADFV"])
    asked = bench.settings(test_dataset=["UADFV"], robustness=["noise", "block"])
    documents = []
    for number, settings in enumerate((plain, asked, asked)):
        path = evaluate(settings, bench.host, weights=checkpoint, output_dir=tmp_path / str(number))
        documents.append(results.read(path))
    blocks = [document["datasets"]["UADFV"] for document in documents]
    assert "robustness" not in blocks[0]
    assert blocks[0]["scores_sha256"] == blocks[1]["scores_sha256"]
    assert blocks[1]["robustness"] == blocks[2]["robustness"]
    assert list(blocks[1]["robustness"]["corruptions"]) == ["noise", "block"]
    text = robustness_table(documents[1])
    assert "UADFV noise" in text
    assert "verdicts flipped" in text
    assert robustness_table(documents[0]) == ""


def test_pictures_have_no_video_codec(bench, checkpoint, tmp_path):
    bench.write("UADFV", frames=1)
    settings = bench.settings(test_dataset=["UADFV"], robustness=["jpeg", "video"])
    pytest.importorskip("av")
    path = evaluate(settings, bench.host, weights=checkpoint, output_dir=tmp_path)
    block = results.read(path)["datasets"]["UADFV"]["robustness"]
    assert "pictures" in block["left_out"]["video"]
    assert list(block["corruptions"]) == ["jpeg"]


def test_an_unknown_corruption_is_one_line_and_help_names_all():

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert "saturation" in parser.format_help()

    with pytest.raises(UserError, match="--robustness; got 'blr'"):
        choose_corruptions(["blr"])
