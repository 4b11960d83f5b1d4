"""What a leaderboard decides: equal to compare with one seed, careful with several."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from effort_finetune.core.files import sha256_file
from effort_finetune.evaluate.compared_runs import Run
from effort_finetune.evaluate.comparison import compare
from effort_finetune.evaluate.delong import Placed, placed
from effort_finetune.evaluate.score_file import COLUMNS
from effort_finetune.studies.board_statistics import (
    Parts,
    difference_of,
    interval_of,
    mean_and_deviation,
    mean_placed,
    paired_parts,
    seed_variance,
)


def run_of(folder, label, prob, name="a", frames=1) -> Run:
    """A run of one dataset D, as far as comparisons read it; a video has ``frames`` frames."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for i, (y, p) in enumerate(zip(label, prob, strict=True)):
            writer.writerow(["D", f"v{i // frames}", f"v{i // frames}/{i % frames}", y, repr(float(p)), 0])
    block = {
        "status": "complete", "scores": path.name, "scores_sha256": sha256_file(path), "warnings": [],
        "video": {"auc": roc_auc_score(label, prob)},
    }  # fmt: skip
    return Run(name, folder / "results.json", {"datasets": {"D": block}, "protocol": {}}, False)


def drawn(rng, label, shift=1.0):
    return 1 / (1 + np.exp(-(label * shift + rng.normal(size=len(label)))))


@given(st.integers(0, 2**31), st.sampled_from([1, 3]))
@settings(max_examples=15)
def test_one_seed_is_decided_as_compare_does(tmp_path_factory, seed, frames):
    folder = tmp_path_factory.mktemp("one")
    rng = np.random.default_rng(seed)
    label = np.repeat([0] * 9 + [1] * 8, frames)
    first = run_of(folder, label, drawn(rng, label), "first", frames)
    second = run_of(folder, label, drawn(rng, label), "second", frames)
    for level in ("video", "frame"):
        (row,) = compare([second, first], [], declared=f"{level}_auc").rows
        parts = paired_parts([first], [second], "D", level)
        found = difference_of([parts], [[0.0]], [[0.0]])
        assert found.change == pytest.approx(row.change, abs=1e-12)
        assert found.p == pytest.approx(row.p, abs=1e-12)
        if row.low is not None:
            assert found.error == pytest.approx((row.high - row.low) / 2 / stats.norm.ppf(0.975))


def test_equal_detectors_differ_by_nothing(tmp_path):
    label = np.array([0, 0, 0, 1, 1, 1])
    run = run_of(tmp_path, label, [0.1, 0.4, 0.35, 0.8, 0.3, 0.9])
    found = difference_of([paired_parts([run], [run], "D", "video")], [[0.9]], [[0.9]])
    assert (found.change, found.error, found.p) == (0, 0, 1)


def test_the_mean_of_seeds_has_the_mean_of_their_placements(tmp_path):
    rng = np.random.default_rng(1)
    label = np.array([0] * 20 + [1] * 20)
    runs = [run_of(tmp_path / str(seed), label, drawn(rng, label)) for seed in range(3)]
    aucs = [run.value("D", "video", "auc") for run in runs]
    found = mean_placed(runs, "D", "video", [f"v{i}" for i in range(40)])
    assert found.auc == pytest.approx(np.mean(aucs))
    # Three independent noises share no error but the labels': the mean is surer than each.
    alone = mean_placed(runs[:1], "D", "video", [f"v{i}" for i in range(40)])
    assert found.variance < alone.variance
    low, high = interval_of(aucs, runs, "D", "video")
    assert low < found.auc < high


def test_seeds_that_differ_widen_the_error(tmp_path):
    rng = np.random.default_rng(2)
    label = np.array([0] * 30 + [1] * 30)
    base = drawn(rng, label)
    best = [run_of(tmp_path / f"b{i}", label, base) for i in range(2)]
    other = [
        run_of(tmp_path / f"o{i}", label, drawn(rng, label, shift)) for i, shift in enumerate((0.2, 1.4))
    ]
    parts = [paired_parts(best, other, "D", "video")]
    values = [[run.value("D", "video", "auc")] for run in other]
    sure = difference_of(parts, [[0.7], [0.7]], [[0.6], [0.6]])
    unsure = difference_of(parts, [[0.7], [0.7]], values)
    assert unsure.error > sure.error
    assert unsure.error**2 - sure.error**2 == pytest.approx(seed_variance([v for (v,) in values]))
    assert mean_and_deviation([0.5, 0.7]) == (pytest.approx(0.6), pytest.approx(np.sqrt(0.02)))
    assert mean_and_deviation([0.5]) == (0.5, None)


def test_an_average_over_datasets_adds_variances(tmp_path):
    rng = np.random.default_rng(3)
    label = np.array([0] * 15 + [1] * 15)
    pairs = [[run_of(tmp_path / f"{who}{i}", label, drawn(rng, label)) for who in "ab"] for i in range(2)]
    parts = [paired_parts([a], [b], "D", "video") for a, b in pairs]
    found = difference_of(parts, [[0.0, 0.0]], [[0.0, 0.0]])
    assert found.change == pytest.approx(np.mean([part.change for part in parts]))
    assert found.error**2 == pytest.approx(sum(part.video_variance for part in parts) / 4)


def test_two_detectors_that_are_alike_are_told_apart_in_five_of_a_hundred(tmp_path):
    """2,000 pairs of 40 + 40 videos: noise at AUC .76, half of it shared."""
    rng = np.random.default_rng(4)
    label = np.array([0] * 40 + [1] * 40)
    own = np.arange(80)
    seen = 0
    for _ in range(2000):
        shared = rng.normal(size=80)
        sides = []
        for _ in range(2):
            scores = label + (shared + rng.normal(size=80)) / np.sqrt(2)
            sides.append(placed(label, scores, own, label))
        gap = Placed(sides[0].auc - sides[1].auc, sides[0].parts - sides[1].parts, label)
        seen += difference_of([Parts(gap.auc, gap.variance)], [[0.0]], [[0.0]]).p < 0.05
    assert 0.035 <= seen / 2000 <= 0.065


def test_without_scores_or_videos_nothing_is_tested(tmp_path):
    label = np.array([0, 0, 1, 1])
    run = run_of(tmp_path / "a", label, [0.1, 0.2, 0.3, 0.4])
    few = run_of(tmp_path / "b", label[1:], [0.1, 0.2, 0.3])
    assert paired_parts([run], [few], "D", "video") is None
    bare = Run(
        "x",
        tmp_path / "x.json",
        {"datasets": {"D": {"scores": None, "status": "complete"}}, "protocol": {}},
        False,
    )
    assert paired_parts([bare], [run], "D", "video") is None
