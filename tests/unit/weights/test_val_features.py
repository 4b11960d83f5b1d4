"""Statistics of validation features: written and read back, and no distance of what is no statistics."""

from __future__ import annotations

import json

import numpy as np
import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.weights.val_features import MOST_BYTES, ValFeatures, checked_features


def _statistics(width: int = 6) -> ValFeatures:
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(width, 3)))[0].T
    return ValFeatures(rng.normal(size=width), axes, np.array([4.0, 2.0, 1.0]), 0.5, 1.5, 1.2, 40)


def test_the_distance_is_mahalanobis():
    found = _statistics()
    cov = found.axes.T @ np.diag(found.variance - found.rest) @ found.axes + found.rest * np.eye(6)
    points = np.random.default_rng(2).normal(size=(5, 6)) * 3
    centred = points - found.mean
    naive = np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(cov), centred) / 6)
    assert found.distance(points) == pytest.approx(naive, abs=1e-9)


def test_they_are_read_back_and_small():
    found = _statistics(1024)
    text = json.dumps(found.to_dict())
    again = checked_features(json.loads(text), "weights")
    points = np.random.default_rng(3).normal(size=(4, 1024))
    assert again.distance(points) == pytest.approx(found.distance(points), rel=2e-3)
    assert len(text) < MOST_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"rest": 0}, {"rest": "x"}, {"variance": []}, {"variance": [1.0]}, {"mean": "!!"}, {"mean": 3},
        {"axes": ""}, {"video_limit": float("nan")}, {"variance": [1.0, -1.0, 1.0]},
    ],
)  # fmt: skip
def test_what_is_no_statistics_is_refused(change):
    with pytest.raises(UserError, match="features"):
        checked_features({**_statistics().to_dict(), **change}, "weights")
    with pytest.raises(UserError, match="features"):
        checked_features([1], "weights")
