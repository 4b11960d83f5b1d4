"""Calibration: what is planted is found, thresholds and band hold on videos that were not fitted on."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import special

from effort_finetune.core.errors import UserError
from effort_finetune.core.metrics import binary_metrics
from effort_finetune.evaluate.calibration import fit, reliability


def drawn(seed, n, temperature=3.0, bias=1.5):
    """Labels of calibrated log-odds, and the probabilities of a detector that overstates and leans."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2, n)
    label = (rng.random(n) < special.expit(odds)).astype(int)
    return label, special.expit((odds - bias) * temperature)


def test_a_planted_temperature_and_bias_are_found():
    found = fit(*drawn(0, 20_000))
    assert found.temperature == pytest.approx(3.0, rel=0.06)
    assert found.bias == pytest.approx(1.5, abs=0.1)
    label, prob = drawn(1, 5000)
    assert binary_metrics(label, prob)["ece"] > 0.1
    assert binary_metrics(label, found.apply(prob))["ece"] < 0.03
    assert binary_metrics(label, prob)["auc"] == pytest.approx(
        binary_metrics(label, found.apply(prob))["auc"]
    )
    assert found.warnings == ()


def test_thresholds_and_band_hold_on_other_videos():
    found = fit(*drawn(2, 20_000), error=0.1)
    label, prob = drawn(3, 20_000)
    prob = found.apply(prob)
    for name, rate in (("fpr_1pct", 0.01), ("fpr_5pct", 0.05)):
        assert np.mean(prob[label == 0] > found.thresholds[name]) == pytest.approx(rate, rel=0.25)
    low, high = found.unsure
    assert np.mean(prob[label == 0] > high) == pytest.approx(0.1, abs=0.01)
    assert np.mean(prob[label == 1] < low) == pytest.approx(0.1, abs=0.01)


def test_a_dear_false_alarm_raises_the_threshold():
    label, prob = drawn(4, 2000)
    cheap, dear = (fit(label, prob, cost=cost).thresholds["cost"] for cost in (0.1, 10))
    assert cheap < dear


def test_few_videos_are_a_warning_and_separable_ones_stay_finite():
    found = fit(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert np.isfinite([found.temperature, found.bias]).all()
    assert found.thresholds["fpr_1pct"] is None
    assert found.unsure is None
    assert any("2 real and 2 fake videos" in line for line in found.warnings)
    with pytest.raises(UserError, match="both classes"):
        fit(np.array([1, 1]), np.array([0.1, 0.2]))


def test_the_hash_is_of_what_decides():
    label, prob = drawn(5, 500)
    one, other = fit(label, prob).to_dict(), fit(label, prob, fitted_on={"x": 1}).to_dict()
    assert one["sha256"] == other["sha256"]
    assert one["sha256"] != fit(label[:400], prob[:400]).to_dict()["sha256"]


def test_reliability_counts_every_video():
    label, prob = drawn(6, 300)
    assert sum(row["videos"] for row in reliability(label, prob)) == 300


def test_the_command_needs_no_torch(tmp_path):
    label, prob = drawn(7, 300)
    lines = [
        f"A,v{i},v{i}/0.png,{y},{p!r},0.0" for i, (y, p) in enumerate(zip(label, prob.tolist(), strict=True))
    ]
    (tmp_path / "val.csv").write_text("\n".join(["dataset,video,frame,label,prob,logit", *lines]) + "\n")

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "effort_finetune", "calibrate", *arguments],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip

    done = command("val.csv", "--cost", "2")
    assert done.returncode == 0, done.stderr
    assert "temperature" in done.stdout
    assert not any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())
    document = json.loads((tmp_path / "calibration.json").read_text())
    assert set(document["thresholds"]) == {"balanced", "fpr_1pct", "fpr_5pct", "cost"}
    for wrong in (["nothing.csv"], ["val.csv", "--error", "0.7"], ["val.csv", "--cost", "-1"]):
        assert command(*wrong).returncode == 2
