"""Where the features of the validation set lie, small enough to travel with the weights.

A Gaussian with a few directions of its own and one variance for all others (probabilistic PCA, Tipping and
Bishop 1999); how far a file lies from it is its Mahalanobis distance (Lee et al. 2018).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.weights.stored_calibration import FloatArray

MOST_BYTES = 100_000
_MOST_WIDTH, _MOST_AXES = 8192, 64


@dataclass(frozen=True)
class ValFeatures:
    """The features of a validation set.

    Attributes:
        mean: ``float64[d]``, of its frames.
        axes: ``float64[k, d]``, orthonormal, the directions of largest variance.
        variance: ``float64[k]``, along these.
        rest: Variance along every other direction.
        frame_limit: Distance that 95 % of frames of left-out videos stay under.
        video_limit: The same of videos, whose distance is the mean of their frames'.
        videos: How many there were.
    """

    mean: FloatArray
    axes: FloatArray
    variance: FloatArray
    rest: float
    frame_limit: float
    video_limit: float
    videos: int

    def distance(self, features: FloatArray) -> FloatArray:
        """Returns how far features lie, ``float64[N]``: 1 is usual.

        Args:
            features: ``[N, d]``.
        """
        centred = np.asarray(features, dtype=np.float64) - self.mean
        along = centred @ self.axes.T
        left = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.sqrt(((along**2 / self.variance).sum(axis=1) + left / self.rest) / len(self.mean))

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types; the arrays as base64 of little-endian float16."""
        return {
            "mean": _packed(self.mean),
            "axes": _packed(self.axes),
            "variance": self.variance.tolist(),
            "rest": self.rest,
            "frame_limit": self.frame_limit,
            "video_limit": self.video_limit,
            "videos": self.videos,
        }


def checked_features(found: Any, what: str) -> ValFeatures:
    """Reads statistics from a file anyone may have written.

    Raises:
        UserError: If they are none.
    """
    wrong = UserError(f"{what}: features", got="no statistics", expected="those that calibrate writes")
    if not isinstance(found, Mapping):
        raise wrong
    try:
        numbers = [float(found[key]) for key in ("rest", "frame_limit", "video_limit", "videos")]
        variance = np.asarray(found["variance"], dtype=np.float64).reshape(-1)
        mean, axes = (_unpacked(found[key]) for key in ("mean", "axes"))
        if not 0 < len(mean) <= _MOST_WIDTH or not 0 < len(variance) <= _MOST_AXES:
            raise ValueError
        axes = axes.reshape(len(variance), len(mean))
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise wrong from error
    if not (np.isfinite(mean).all() and np.isfinite(axes).all()) or not all(
        np.isfinite(v) and v > 0 for v in [*numbers, *variance.tolist()]
    ):
        raise UserError(f"{what}: features", got=visible(repr(numbers)), expected="numbers above 0")
    rest, frame_limit, video_limit, videos = numbers
    return ValFeatures(mean, axes, variance, rest, frame_limit, video_limit, int(videos))


def _packed(values: FloatArray) -> str:
    return base64.b64encode(values.astype("<f2").tobytes()).decode("ascii")


def _unpacked(text: Any) -> FloatArray:
    if not isinstance(text, str) or len(text) > 2 * MOST_BYTES:
        raise ValueError
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float64)
