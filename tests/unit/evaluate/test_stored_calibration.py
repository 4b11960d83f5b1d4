"""A calibration travels with the weights, changes no tensor, and is applied beside the raw numbers."""

from __future__ import annotations

import json
import shutil

import make_layouts as golden
import numpy as np
import pytest
import torch
from scipy import special

from effort_finetune.core.errors import UserError
from effort_finetune.core.metrics import binary_metrics
from effort_finetune.evaluate import results
from effort_finetune.evaluate.calibrated_block import calibrated_block, calibration_warnings
from effort_finetune.evaluate.calibration import fit
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.val_scores import of_file
from effort_finetune.evaluate.val_scoring import score_val
from effort_finetune.export.calibrated import store_calibration
from effort_finetune.export.calibrated_name import calibrated_name
from effort_finetune.export.merged import export_merged
from effort_finetune.weights.adapter import save_adapter
from effort_finetune.weights.deepfakebench_layout import export_deepfakebench
from effort_finetune.weights.reader import read_checkpoint, read_statement
from effort_finetune.weights.stored_calibration import checked_calibration


def drawn(seed, n=400):
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2, n)
    label = (rng.random(n) < special.expit(odds)).astype(int)
    return label, special.expit((odds - 1) * 2.5)


@pytest.fixture
def calibration():
    return fit(*drawn(0), cost=2.0)


@pytest.fixture
def files(tmp_path):
    """The same model as .pth, adapter and merged folder."""
    golden_pth, base = tmp_path / "own.pth", tmp_path / "base.pth"
    torch.save(golden.detector(), golden_pth)
    torch.save(golden.detector(), base)
    checkpoint = read_checkpoint(golden_pth, head_width=golden.HEAD_WIDTH)
    export_merged(checkpoint, tmp_path / "merged")
    save_adapter(tmp_path / "a.safetensors", checkpoint.tensors, read_checkpoint(base))
    return [golden_pth, tmp_path / "a.safetensors", tmp_path / "merged"]


def test_every_kind_of_file_carries_it_and_keeps_its_tensors(files, calibration):
    for file in files:
        before = read_checkpoint(file, head_width=golden.HEAD_WIDTH)
        output = store_calibration(file, calibration, calibrated_name(file))
        after = read_checkpoint(output, head_width=golden.HEAD_WIDTH)
        assert checked_calibration(after.statement.calibration, "x") == calibration, file
        assert checked_calibration(read_statement(output).calibration, "x") == calibration, file
        assert after.tensors.keys() == before.tensors.keys()
        assert all(torch.equal(after.tensors[key], value) for key, value in before.tensors.items())
        assert after.statement.mean == before.statement.mean
        with pytest.raises(UserError, match="never overwritten"):
            store_calibration(file, calibration, output)


def test_exports_of_calibrated_weights_carry_it(files, calibration, tmp_path):
    output = store_calibration(files[0], calibration, tmp_path / "c.pth")
    checkpoint = read_checkpoint(output, head_width=golden.HEAD_WIDTH)
    export_deepfakebench(checkpoint, tmp_path / "again.pth")
    export_merged(checkpoint, tmp_path / "again")
    for name in ("again.pth", "again"):
        assert read_statement(tmp_path / name).calibration["sha256"] == calibration.sha256


def test_an_onnx_file_carries_it(tmp_path, calibration):
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"other": "kept", "effort_finetune": '{"resolution": 32}'})
    onnx.save(model, tmp_path / "m.onnx")
    output = store_calibration(tmp_path / "m.onnx", calibration, tmp_path / "c.onnx")
    stated = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert stated["other"] == "kept"
    said = json.loads(stated["effort_finetune"])
    assert said["resolution"] == 32
    assert checked_calibration(said["calibration"], "x") == calibration


def test_weights_without_a_place_for_it_are_refused(tmp_path, calibration):
    torch.save({"state_dict": golden.detector(), "epoch": 3}, tmp_path / "wrapped.pth")
    with pytest.raises(UserError, match="no place for a calibration"):
        store_calibration(tmp_path / "wrapped.pth", calibration, tmp_path / "c.pth")
    assert not (tmp_path / "c.pth").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 0}, {"temperature": float("nan")}, {"bias": "1"}, {"thresholds": {"x": 2}},
        {"thresholds": []}, {"unsure": [0.1]}, {"temperature": 1.5}, {"warnings": "no list"}, {"error": True},
    ],
)  # fmt: skip
def test_nonsense_and_edited_numbers_are_refused(calibration, changed):
    with pytest.raises(UserError):
        checked_calibration({**calibration.to_dict(), **changed}, "x")


def test_numbers_of_the_block_are_those_of_the_calibrated_videos(calibration):
    label, prob = drawn(1)
    block = calibrated_block(calibration, label, prob)
    calibrated = calibration.apply(prob)
    assert block["calibrated"]["nll"] == pytest.approx(binary_metrics(label, calibrated)["nll"])
    assert block["calibrated"]["nll"] < block["raw"]["nll"]
    for at in block["at"].values():
        wrong = calibrated[label == 0] > at["threshold"]
        assert at["fpr"] == wrong.mean() == pytest.approx(1 - at["acc_real"])
        assert at["fpr_interval"][0] <= at["fpr"] <= at["fpr_interval"][1]
    assert set(block["at"]) == {"balanced", "fpr_1pct", "fpr_5pct", "cost"}
    low, high = calibration.unsure
    assert block["unsure"]["share"] == np.mean((calibrated >= low) & (calibrated <= high))


def test_the_band_keeps_its_error_although_the_same_few_videos_set_the_temperature():
    rates = []
    for seed in range(60):
        label, prob = drawn(seed, 80)
        found = fit(label, prob, error=0.2)
        new_label, new = drawn(10_000 + seed, 400)
        low, high = found.unsure
        new = found.apply(new)
        rates.append([np.mean(new[new_label == 0] > high), np.mean(new[new_label == 1] < low)])
    assert (np.mean(rates, axis=0) < 0.2 + 0.02).all()


def test_videos_of_another_kind_few_or_the_same_are_said(calibration):
    about = {"ToyA": {"kind": {"sampling": "uniform"}, "frames_sha256": "f" * 64}}
    few = fit(*drawn(2, 60), fitted_on={"datasets": about})
    text = " ".join(calibration_warnings(few, "ToyB", {"sampling": "first"}, "f" * 64))
    for part in ("it is a guess", "very frames (ToyA)", "not of ToyB", "another kind: sampling"):
        assert part in text
    assert calibration_warnings(calibration, "ToyB", {}, "0" * 64) == []


def test_val_videos_are_scored_stored_and_applied(bench, checkpoint, tmp_path):
    bench.write("ToyA", videos=6)
    settings = bench.settings(test_dataset=["ToyA"], val_dataset=["ToyA"])
    scores = score_val(settings, bench.host, checkpoint)
    assert scores.datasets["ToyA"]["split"] == "val"
    assert (scores.datasets["ToyA"]["real"], scores.datasets["ToyA"]["fake"]) == (6, 6)
    found = fit(scores.label, scores.prob, fitted_on=scores.fitted_on())
    weights = store_calibration(checkpoint, found, tmp_path / "c.pth")
    runs = [
        results.read(evaluate(settings, bench.host, weights=path, output_dir=tmp_path / path.stem))
        for path in (checkpoint, weights)
    ]
    raw, block = (run["datasets"]["ToyA"] for run in runs)
    assert raw.get("calibrated") is None
    assert block["calibrated"]["sha256"] == found.sha256
    assert block["video"] == raw["video"]
    assert block["scores_sha256"] == raw["scores_sha256"]
    assert any("it is a guess" in line for line in block["warnings"])
    again = of_file(tmp_path / "c")
    assert "test videos of ToyA" in again.warnings[0]
    np.testing.assert_array_equal(np.sort(again.label), np.sort(scores.label))
    shutil.rmtree(tmp_path / "c")


def test_scores_of_another_program(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text("clip,score,truth\na,0.25,real\na,0.75,real\nb,1,FAKE\n")
    columns = {"video": "clip", "label": "truth", "prob": "score"}
    scores = of_file(path, columns)
    assert scores.label.tolist() == [0, 1]
    assert scores.prob.tolist() == [0.5, 1.0]
    for content, reason in (
        ("clip,score\na,1\n", "no column 'truth'"),
        ("clip,score,truth\na,2,real\n", "line 2"),
        ("clip,score,truth\na,.2,real\na,.2,fake\n", "as real and as fake"),
        ("clip,score,truth\na,x,real\n", "line 2; got score"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=reason):
            of_file(path, columns)
