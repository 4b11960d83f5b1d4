"""A file of the validation set's kind is far once in twenty, one of another kind nearly always."""

from __future__ import annotations

import numpy as np

from effort_finetune.evaluate.feature_fit import fit_features
from effort_finetune.predict.verdicts import rule_of
from effort_finetune.weights.val_features import checked_features


def _videos(rng, count, frames, *, shift=0.0, width=64):
    """Features of videos: a mean of its own for each, frames about it."""
    scale = np.linspace(2, 0.2, width)
    means = rng.normal(size=(count, 1, width)) * scale + shift
    return (means + 0.3 * rng.normal(size=(count, frames, width)) * scale).reshape(-1, width)


def test_one_in_twenty_of_the_same_kind_is_far():
    rng = np.random.default_rng(0)
    shares, others = [], []
    for _ in range(20):
        found = fit_features(_videos(rng, 100, 4), np.repeat(np.arange(100), 4))
        read = checked_features(found.to_dict(), "x")
        same = read.distance(_videos(rng, 200, 4)).reshape(200, 4).mean(axis=1)
        other = read.distance(_videos(rng, 50, 4, shift=2.0)).reshape(50, 4).mean(axis=1)
        shares.append(np.mean(same > read.video_limit))
        others.append(np.mean(other > read.video_limit))
    assert 0.02 < np.mean(shares) < 0.09
    assert np.mean(others) > 0.9


def test_too_few_videos_or_no_numbers_give_none():
    rng = np.random.default_rng(0)
    assert fit_features(_videos(rng, 19, 2), np.repeat(np.arange(19), 2)) is None
    broken = _videos(rng, 30, 2)
    broken[3, 4] = np.nan
    assert fit_features(broken, np.repeat(np.arange(30), 2)) is None
    assert fit_features(np.zeros((60, 8)), np.repeat(np.arange(30), 2)) is not None


def test_a_far_face_is_unsure_and_says_so():
    rng = np.random.default_rng(4)
    found = fit_features(_videos(rng, 60, 4), np.repeat(np.arange(60), 4))
    rule = rule_of({"temperature": 1.0, "bias": 0.0, "features": found.to_dict()}, None)
    near, far = (
        rule.farness(_videos(rng, 1, 8, shift=shift) * (shift > 0), video=True) for shift in (0, 9.0)
    )
    assert rule.verdict(0.95, frames=8, video=True, distance=near) == ("fake", ())
    verdict, reasons = rule.verdict(0.95, frames=8, video=True, distance=far)
    assert verdict == "unsure"
    assert reasons[0].startswith("far from the validation set")
