"""Fits where the features of validation videos lie, and how far a video of their kind may lie from them."""

from __future__ import annotations

import numpy as np

from effort_finetune.core.seeding import derive
from effort_finetune.core.weighted import FloatArray, IntArray
from effort_finetune.weights.val_features import ValFeatures

AXES = 16
FEWEST_VIDEOS = 20
FOLDS = 5
WITHIN = 0.95


def fit_features(features: FloatArray, video: IntArray) -> ValFeatures | None:
    """Fits a Gaussian; its limits are those of videos that a fit did not see.

    Args:
        features: ``[F, d]``, of frames.
        video: ``[F]``, which video each belongs to.

    Returns:
        The statistics; None for too few videos or features that are not finite.
    """
    names, number = np.unique(video, return_inverse=True)
    if len(names) < FEWEST_VIDEOS or not np.isfinite(features).all():
        return None
    fold = np.random.default_rng(derive(0, "feature folds", 0)).permutation(len(names)) % FOLDS
    distance = np.empty(len(features))
    for part in range(FOLDS):
        out = fold[number] == part
        distance[out] = _gaussian(features[~out], len(names)).distance(features[out])
    by_video = np.bincount(number, distance) / np.bincount(number)
    found = _gaussian(features, len(names))
    frame, whole = (float(np.quantile(values, WITHIN)) for values in (distance, by_video))
    return ValFeatures(found.mean, found.axes, found.variance, found.rest, frame, whole, len(names))


def _gaussian(features: FloatArray, videos: int) -> ValFeatures:
    mean = features.mean(axis=0)
    _, size, axes = np.linalg.svd(features - mean, full_matrices=False)
    count = max(1, min(AXES, videos // 4, len(size) - 1))
    variance = size**2 / max(len(features) - 1, 1)
    rest = variance[count:].sum() / max(len(mean) - count, 1)
    floor = 1e-6 * max(float(variance.sum()) / len(mean), 1e-6)  # of features that do not vary at all
    return ValFeatures(
        mean, axes[:count], np.maximum(variance[:count], floor), max(float(rest), floor), 1.0, 1.0, videos
    )
