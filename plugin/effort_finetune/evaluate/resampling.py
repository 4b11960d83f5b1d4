"""Videos drawn again and left out: the rows of weights behind bootstrap and jackknife."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from effort_finetune.core.seeding import derive
from effort_finetune.core.weighted import FloatArray, IntArray

#: A class of more videos is left out by groups, which keeps the jackknife small: with so many of them its
#: variance is known to an eighth. Videos come to a group by lot: neighbours are often of one forgery.
_MOST_SINGLE, _GROUPS = 200, 128
_DRAWN_AT_ONCE = 1 << 16


def resample_videos(video_label: IntArray, *, samples: int, seed: int) -> NDArray[np.uint16]:
    """Draws videos with replacement within each class.

    Args:
        video_label: ``[V]``, 0 real, 1 fake.
        samples: Number of resamples ``B``.
        seed: The run's seed; the draws come from streams of their own.

    Returns:
        ``uint16[B, V]``: how often each video was drawn. Row sums per class are the class sizes.
    """
    counts = np.zeros((samples, len(video_label)), dtype=np.uint16)
    for value in (0, 1):
        columns = np.flatnonzero(video_label == value)
        if not len(columns):
            continue
        rng = np.random.default_rng(derive(seed, "bootstrap", value))
        step = max(1, _DRAWN_AT_ONCE // len(columns))
        for start in range(0, samples, step):
            rows = min(step, samples - start)
            drawn = rng.integers(0, len(columns), size=(rows, len(columns)))
            drawn += np.arange(rows)[:, None] * len(columns)
            counts[start : start + rows, columns] = np.bincount(
                drawn.ravel(), minlength=rows * len(columns)
            ).reshape(rows, -1)
    return counts


def leave_out(video_label: IntArray) -> tuple[NDArray[np.uint16], FloatArray]:
    """Returns the rows of weights of a jackknife over videos, and how to read a sum off it.

    Args:
        video_label: ``[V]``, 0 real, 1 fake.

    Returns:
        ``uint16[G, V]``, each row without one video of a class (without one of 128 groups of them where a
        class has more than 200), and ``float64[G, 2]``: the class of each row and the share of it that stays.
    """
    rows: list[NDArray[np.uint16]] = []
    about: list[tuple[float, float]] = []
    for value in (0, 1):
        columns = np.flatnonzero(video_label == value)
        if len(columns) < 2:
            continue
        count = len(columns)
        if count > _MOST_SINGLE:
            np.random.default_rng(derive(0, "leave out", value)).shuffle(columns)
            count = _GROUPS
        for group in np.array_split(columns, count):
            row = np.ones(len(video_label), dtype=np.uint16)
            row[group] = 0
            rows.append(row)
            about.append((value, 1 - len(group) / len(columns)))
    return np.array(rows, dtype=np.uint16).reshape(-1, len(video_label)), np.array(about).reshape(-1, 2)


def influence_sums(jackknife: FloatArray, about: FloatArray) -> FloatArray:
    """Returns what each left-out group contributes to the value, ``[G]``, centred within its class.

    Args:
        jackknife: ``[G]`` values of a metric under the rows of :func:`leave_out`.
        about: Its second result.
    """
    parts = np.zeros(len(jackknife))
    for value in (0, 1):
        rows = about[:, 0] == value
        if rows.any():
            parts[rows] = (np.mean(jackknife[rows]) - jackknife[rows]) * about[rows, 1]
    return parts


def jackknife_bias(jackknife: FloatArray, value: float, about: FloatArray) -> float:
    """Returns how much too high the value is by having few videos, by the jackknife (Quenouille 1956).

    Args:
        jackknife: ``[G]`` values of a metric under the rows of :func:`leave_out`.
        value: Its value on all videos.
        about: The second result of :func:`leave_out`.
    """
    return float(np.sum((jackknife - value) * about[:, 1]))
