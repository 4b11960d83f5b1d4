"""The arithmetic of the pointing game and of risk and coverage, against naive counting."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import pointing, risk_coverage


def _fake(number: int, place: tuple[int, int]) -> pointing.Fake:
    mask = np.zeros((4, 4), bool)
    mask[place] = True
    blank = np.zeros((4, 4, 3), np.uint8)
    return pointing.Fake(f"v{number}", number, blank, mask, blank)


def test_a_share_is_of_one_half_and_its_interval_of_videos():
    fakes = [_fake(number, (0, 0)) for number in (0, 0, 1, 1, 3, 3, 5, 5)]
    hits = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, np.nan, np.nan])
    found = pointing.share(hits, fakes, 1)
    assert found["share"] == 0.75
    assert (found["fakes"], found["videos"]) == (4, 2)
    assert found["interval"] == [0.5, 1.0]
    assert pointing.share(np.full(8, np.nan), fakes, 1) is None


def test_the_fixed_place_is_learned_on_the_other_half():
    fakes = [_fake(0, (1, 1)), _fake(2, (1, 1)), _fake(4, (2, 2)), _fake(1, (1, 1)), _fake(3, (2, 2))]
    assert pointing.fixed_place(fakes).tolist() == [1, 1, 0, 1, 0]


def test_the_method_is_the_one_that_hits_beyond_the_real_twins():
    def row(fakes: float, reals: float) -> dict[str, object]:
        return {"choose": {"share": fakes}, "choose_reals": {"share": reals}}

    blocks = {
        "B": {"methods": {"attention_rollout": row(0.96, 0.9), "gradient_rollout": row(0.8, 0.3)}},
        "A": {"methods": {"attention_rollout": row(0.9, 0.9), "gradient_rollout": row(0.7, 0.5),
                          "grad_cam": row(1.0, 0.0)}},
    }  # fmt: skip
    assert pointing.choose(blocks) == "gradient_rollout"
    assert pointing.choose({}) is None


def test_the_area_is_the_mean_risk_over_coverages():
    rng = np.random.default_rng(0)
    trust, wrong = rng.permutation(50).astype(float), rng.random(50) < 0.3
    order = np.argsort(-trust)
    naive = np.mean([wrong[order[:kept]].mean() for kept in range(1, 51)])
    assert risk_coverage.area(trust, wrong) == pytest.approx(naive)
    assert risk_coverage.area(np.zeros(50), wrong) == pytest.approx(wrong.mean())  # ties order nothing


def test_together_is_the_least_rank_among_validation_frames():
    val = {name: np.arange(10.0) for name in risk_coverage.SIGNALS}
    found = {
        "score": np.array([9.0, 4.0]),
        "stability": np.array([9.0, 9.0]),
        "distance": np.array([1.0, 9.0]),
    }
    assert risk_coverage.ranked(found, val).tolist() == [0.2, 0.5]


def test_the_package_keeps_the_figures_of_the_published_result():
    published = json.loads(pointing.RESULTS.read_text(encoding="utf-8"))
    assert json.loads(pointing.FILE.read_text(encoding="utf-8")) == list(pointing.figures(published))
    for tower in published["towers"].values():
        assert tower["chosen"] == pointing.choose(tower["datasets"])
