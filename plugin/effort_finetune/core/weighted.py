"""Scores sorted once, and their counts at every threshold for many sets of weights at a time.

A bootstrap resample, a jackknife deletion and the samples as they are differ only in how often each video
counts. So a metric is written once, as a function of cumulative weights ``[B, ...]``, and its value, its
resamples and its jackknife come from the same lines; no resample is sorted or copied. Weights are whole
numbers and stay so until the last division: sums of them are exact and cost a third of a conversion's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Kept = TypeVar("Kept")

_CHUNK_ELEMENTS = 1 << 21  # of 8 bytes per array that several metrics read: 16 MB
_BLOCK_ELEMENTS = 1 << 17  # per array that is written and read in turn, so that it stays in the cache


@dataclass(frozen=True)
class SortedScores:
    """Samples in order of falling probability, each of a cluster whose samples count together.

    Attributes:
        label: ``int64[N]``, 0 real, 1 fake, in the order given.
        prob: ``float64[N]``, probability of fake, in the order given.
        cluster: ``int64[N]``, the video of each sample, from 0.
        clusters: Number of clusters ``V``.
        threshold: A sample is called fake when its probability is above it.
    """

    label: IntArray
    prob: FloatArray
    cluster: IntArray
    clusters: int
    threshold: float

    @cached_property
    def _order(self) -> tuple[IntArray, IntArray]:
        order = np.argsort(-self.prob, kind="stable")
        fake = self.label[order] == 1
        return order[~fake], order[fake]

    @cached_property
    def real_clusters(self) -> IntArray:
        """Cluster of each real sample, highest score first."""
        return self.cluster[self._order[0]]

    @cached_property
    def fake_clusters(self) -> IntArray:
        """Cluster of each fake sample, highest score first."""
        return self.cluster[self._order[1]]

    @cached_property
    def thresholds(self) -> tuple[IntArray, IntArray]:
        """Numbers of reals and of fakes at or above each distinct score, falling; begins with ``0, 0``."""
        distinct = np.unique(self.prob)[::-1]
        counts = [np.searchsorted(-self.prob[part], -distinct, side="right") for part in self._order]
        return tuple(np.concatenate([[0], count]).astype(np.int64) for count in counts)  # type: ignore[return-value]

    @cached_property
    def at_fakes(self) -> tuple[IntArray, IntArray, IntArray]:
        """For each fake: reals above its score, reals at or above it, fakes at or above it."""
        reals, fakes = (-self.prob[part] for part in self._order)
        return (
            np.searchsorted(reals, fakes, side="left"),
            np.searchsorted(reals, fakes, side="right"),
            np.searchsorted(fakes, fakes, side="right"),
        )

    @cached_property
    def at_reals(self) -> tuple[IntArray, IntArray]:
        """For each real: fakes above its score, fakes at or above it."""
        reals, fakes = (-self.prob[part] for part in self._order)
        return np.searchsorted(fakes, reals, side="left"), np.searchsorted(fakes, reals, side="right")

    @cached_property
    def called(self) -> tuple[int, int]:
        """Numbers of reals and of fakes that are called fake."""
        above = self.prob > self.threshold
        return int(np.sum(above & (self.label == 0))), int(np.sum(above & (self.label == 1)))

    def by_cluster(self, values: FloatArray) -> FloatArray:
        """Returns the sums of values ``[N]`` over each cluster, ``[V]``."""
        return np.bincount(self.cluster, weights=values, minlength=self.clusters).astype(np.float64)

    @cached_property
    def _kept(self) -> dict[str, Any]:
        return {}

    def once(self, name: str, make: Callable[[SortedScores], Kept]) -> Kept:
        """Returns what ``make`` computes of these samples, computed the first time it is asked for."""
        if name not in self._kept:
            self._kept[name] = make(self)
        return self._kept[name]

    @cached_property
    def sizes(self) -> FloatArray:
        """Samples of each cluster, ``[V]``."""
        return np.bincount(self.cluster, minlength=self.clusters).astype(np.float64)

    def weighted(self, counts: NDArray[Any] | None = None) -> Iterator[WeightedScores]:
        """Yields the samples under weights, some rows of weights at a time.

        Args:
            counts: ``[B, V]``: how often each cluster counts; ``None`` counts each once.
        """
        if counts is None:
            counts = np.ones((1, self.clusters), dtype=np.uint16)
        step = max(1, _CHUNK_ELEMENTS // max(len(self.label), 1))
        for start in range(0, len(counts), step):
            yield WeightedScores(self, counts[start : start + step])

    def apply(
        self, functions: dict[str, Callable[[WeightedScores], FloatArray]], counts: NDArray[Any] | None = None
    ) -> dict[str, FloatArray]:
        """Computes metrics under every row of weights.

        Returns:
            Name to ``float64[B]``; NaN marks weights under which the metric is undefined.
        """
        parts: dict[str, list[FloatArray]] = {name: [] for name in functions}
        with np.errstate(divide="ignore", invalid="ignore"):
            for rows in self.weighted(counts):
                for name, function in functions.items():
                    parts[name].append(function(rows))
        return {name: np.concatenate(values) for name, values in parts.items()}


class WeightedScores:
    """Sorted scores under ``B`` rows of weights; everything is computed when it is first asked for.

    Args:
        scores: The samples.
        counts: ``[B, V]``: how often each cluster counts.
    """

    def __init__(self, scores: SortedScores, counts: NDArray[Any]) -> None:
        self.scores = scores
        self._counts = counts

    @cached_property
    def whole(self) -> IntArray:
        """``int64[B, V]``: the weights, for sums that are to be exact."""
        return self._counts.astype(np.int64)

    @cached_property
    def counts(self) -> FloatArray:
        """``float64[B, V]``: the weights, for products with values."""
        return self._counts.astype(np.float64)

    @cached_property
    def fp(self) -> IntArray:
        """``[B, reals + 1]``: weight of the highest 0, 1, 2, ... reals."""
        return _cumulative(self.whole, self.scores.real_clusters)

    @cached_property
    def tp(self) -> IntArray:
        """``[B, fakes + 1]``: weight of the highest 0, 1, 2, ... fakes."""
        return _cumulative(self.whole, self.scores.fake_clusters)

    @property
    def reals(self) -> IntArray:
        """``[B]``, the weight of all reals."""
        return self.fp[:, -1]

    @property
    def fakes(self) -> IntArray:
        """``[B]``, the weight of all fakes."""
        return self.tp[:, -1]

    @cached_property
    def fake_weights(self) -> IntArray:
        """``[B, fakes]``, highest score first."""
        return np.diff(self.tp, axis=1)

    @cached_property
    def fp_at_fakes(self) -> IntArray:
        """``[B, fakes]``: weight of the reals at or above each fake's score."""
        return np.take(self.fp, self.scores.at_fakes[1], axis=1)

    def at(self, threshold: IntArray) -> tuple[FloatArray, FloatArray]:
        """Returns FPR and TPR at a position of ``scores.thresholds`` for each row, both ``[B]``."""
        reals, fakes = self.scores.thresholds
        row = np.arange(len(self._counts))
        return self.fp[row, reals[threshold]] / self.reals, self.tp[row, fakes[threshold]] / self.fakes

    def last(self, holds: Callable[[FloatArray, FloatArray], NDArray[np.bool_]]) -> IntArray:
        """Returns for each row the last threshold at which a rule still holds, ``[B]``.

        Args:
            holds: FPR and TPR to truth; true at the first threshold, and once false it stays so.
        """
        low = np.zeros(len(self._counts), dtype=np.int64)
        high = np.full(len(self._counts), len(self.scores.thresholds[0]), dtype=np.int64)
        while np.any(high - low > 1):
            middle = (low + high) // 2
            truth = holds(*self.at(middle))
            low, high = np.where(truth, middle, low), np.where(truth, high, middle)
        return low

    @cached_property
    def confusion(self) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """``tn, fp, fn, tp`` at the threshold, ``[B]`` each."""
        real, fake = self.scores.called
        fp, tp = self.fp[:, real], self.tp[:, fake]
        return self.reals - fp, fp, self.fakes - tp, tp

    def mean(self, sums: FloatArray) -> FloatArray:
        """Returns the weighted mean of values whose sums over the clusters are ``[V]`` or ``[V, K]``."""
        return ((self.counts @ sums).T / self.total).T

    @cached_property
    def total(self) -> FloatArray:
        """``[B]``, the weight of all samples."""
        return self.counts @ self.scores.sizes


def blocks(weights: IntArray, clusters: IntArray) -> Iterator[tuple[slice, IntArray]]:
    """Yields the weight of each sample, some rows at a time, in one buffer that the reader may overwrite.

    Args:
        weights: ``int64[B, V]``, of each cluster.
        clusters: ``int64[N]``, the cluster of each sample.

    Yields:
        The rows, and their ``int64[rows, N]``.
    """
    step = max(1, min(len(weights), _BLOCK_ELEMENTS // max(len(clusters), 1)))
    buffer = np.empty((step, len(clusters)), dtype=np.int64)
    for start in range(0, len(weights), step):
        part = weights[start : start + step]
        # "clip" spares a copy; no cluster is out of range.
        yield (
            slice(start, start + len(part)),
            np.take(part, clusters, axis=1, out=buffer[: len(part)], mode="clip"),
        )


def _cumulative(weights: IntArray, clusters: IntArray) -> IntArray:
    total = np.empty((len(weights), len(clusters) + 1), dtype=np.int64)
    total[:, 0] = 0
    for rows, weight in blocks(weights, clusters):
        np.cumsum(weight, axis=1, out=total[rows, 1:])
    return total
