"""Can the classes be told apart without looking at a face? A classifier that sees no more than the files.

A detector trained on reals as JPEG and fakes as PNG learns the format. The score is the AUC of a forest over
what the containers tell, each picture judged by trees that did not see it or its neighbours from one video.
The pictures of a video have one container, so that a video counts once: by the mean over its pictures.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effort_finetune.data.container import (
    CONTAINER,
    STATISTICS,
    Facts,
    container_of,
    numbers_of,
    statistics_of,
)

WARNS_ABOVE = 0.7
PER_CLASS = 200  # pictures that are read
FEWEST = 10  # of each class; with fewer nothing can be said
_VALUES = "format, size, aspect, JPEG quality, EXIF and bytes per pixel"
_FOLDS, _TREES, _LEAF = 5, 40, 3
_Z = 1.959964  # 95 %


@dataclass(frozen=True)
class ConfoundScore:
    """How well something other than the forgery tells the classes apart.

    Attributes:
        auc: Of the held-out folds, over videos and loose pictures; None where nothing can be said.
        low: Lower bound of its 95 % interval (DeLong, on the logit scale).
        high: Upper bound.
        pictures: Pictures looked at.
        strongest: The value that alone tells most, with its own AUC, folded to .5 and above.
        reason: Why there is no score.
    """

    auc: float | None
    low: float | None = None
    high: float | None = None
    pictures: int = 0
    strongest: tuple[str, float] | None = None
    reason: str | None = None

    @property
    def warns(self) -> bool:
        """Whether the lower bound is above .7."""
        return self.low is not None and self.low > WARNS_ABOVE

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)

    def sentence(self, files: str = "the files alone", values: str = _VALUES) -> str:
        """For people: what tells the classes apart, and how well.

        Args:
            files: Whose values they are.
            values: Their names.
        """
        assert self.auc is not None
        assert self.strongest is not None
        return (
            f"{files} tell real from fake: AUC {self.auc:.3f} [{self.low:.3f}, {self.high:.3f}] from "
            f"{values}, most by {self.strongest[0].replace('_', ' ')} ({self.strongest[1]:.3f}): a detector "
            "may learn this instead of the forgery"
        )


def chosen_pictures(
    labels: Sequence[int], videos: Sequence[str], *, seed: int, per_class: int = PER_CLASS
) -> list[int]:
    """Positions of the pictures to read: of each class so many at most, one video after the other.

    Args:
        labels: 0 real, 1 fake.
        videos: The video of each picture.
        seed: Of the draw.
        per_class: At most so many.
    """
    chosen: list[int] = []
    for label in (0, 1):
        by_video: dict[str, list[int]] = defaultdict(list)
        for place, (own, video) in enumerate(zip(labels, videos, strict=True)):
            if own == label:
                by_video[video].append(place)
        draw = random.Random(f"{seed} confounds {label}")
        groups = list(by_video.values())
        draw.shuffle(groups)
        for group in groups:
            draw.shuffle(group)
        longest = max(map(len, groups), default=0)
        rounds = (group[turn] for turn in range(longest) for group in groups if turn < len(group))
        chosen += [place for place, _ in zip(rounds, range(per_class), strict=False)]
    return sorted(chosen)


def container_score(
    read: Callable[[int], bytes | None], labels: Sequence[int], videos: Sequence[str], *, seed: int
) -> ConfoundScore:
    """How well the files alone tell the classes apart.

    Args:
        read: The encoded picture at a position, None where it is missing.
        labels: 0 real, 1 fake, of all pictures.
        videos: The video of each; pictures of one are never in two folds.
        seed: Of the pictures drawn and of the forest.
    """
    return _score(_reading(container_of, read), CONTAINER, labels, videos, seed)


def statistics_score(
    read: Callable[[int], bytes | None], labels: Sequence[int], videos: Sequence[str], *, seed: int
) -> ConfoundScore:
    """The same for sharpness, colour and noise, which may be the forgery itself: shown, never a warning."""
    return _score(_reading(statistics_of, read), STATISTICS, labels, videos, seed)


def facts_score(
    facts: Sequence[Facts | None],
    names: Sequence[str],
    labels: Sequence[int],
    videos: Sequence[str],
    *,
    seed: int,
) -> ConfoundScore:
    """The same for what is known of files that are not here; None for one of which nothing is known."""

    def values(place: int) -> Mapping[str, float] | None:
        known = facts[place]
        return None if known is None else dict(zip(names, numbers_of(known, names), strict=True))

    return _score(values, names, labels, videos, seed)


def _reading(
    values_of: Callable[[bytes], Mapping[str, float] | None], read: Callable[[int], bytes | None]
) -> Callable[[int], Mapping[str, float] | None]:
    return lambda place: values_of(data) if (data := read(place)) else None


def _score(
    values_at: Callable[[int], Mapping[str, float] | None],
    names: Sequence[str],
    labels: Sequence[int],
    videos: Sequence[str],
    seed: int,
) -> ConfoundScore:
    table, own, groups = [], [], []
    for place in chosen_pictures(labels, videos, seed=seed):
        values = values_at(place)
        if values is not None:
            table.append([values[name] for name in names])
            own.append(labels[place])
            groups.append(videos[place])
    label = np.array(own)
    smallest = min((int(np.sum(label == c)) for c in (0, 1)), default=0) if len(label) else 0
    units = min(len({g for g, o in zip(groups, own, strict=True) if o == c}) for c in (0, 1)) if own else 0
    if smallest < FEWEST or units < FEWEST:
        return ConfoundScore(
            None, pictures=len(own), reason=f"fewer than {FEWEST} pictures or videos of a class"
        )
    matrix = np.array(table)
    judged = _held_out(matrix, label, groups, seed)
    auc, low, high = _interval(*_of_videos(judged, label, groups))
    single = [_auc(matrix[label == 0, i], matrix[label == 1, i]) for i in range(len(names))]
    best = int(np.argmax([max(a, 1 - a) for a in single]))
    return ConfoundScore(auc, low, high, len(own), (names[best], max(single[best], 1 - single[best])))


def _held_out(matrix: np.ndarray, label: np.ndarray, groups: Sequence[str], seed: int) -> np.ndarray:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    judged = np.empty(len(label))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed % 2**32)
    for fit, held in folds.split(matrix, label, groups):
        forest = RandomForestClassifier(
            _TREES, min_samples_leaf=_LEAF, class_weight="balanced", random_state=seed % 2**32, n_jobs=1
        )
        judged[held] = forest.fit(matrix[fit], label[fit]).predict_proba(matrix[held])[:, 1]
    return judged


def _of_videos(judged: np.ndarray, label: np.ndarray, groups: Sequence[str]) -> list[np.ndarray]:
    """The mean over the pictures of each video, of real ones and of fake ones."""
    names, means = np.array(groups), []
    for own in (0, 1):
        _, video = np.unique(names[label == own], return_inverse=True)
        means.append(np.bincount(video, judged[label == own]) / np.bincount(video))
    return means


def _auc(real: np.ndarray, fake: np.ndarray) -> float:
    order = np.sort(real)
    below = np.searchsorted(order, fake, "left")
    above = np.searchsorted(order, fake, "right")
    return float(np.mean((below + above) / 2) / len(real))


def _interval(real: np.ndarray, fake: np.ndarray) -> tuple[float, float, float]:
    """AUC and its DeLong interval on the logit scale; of a perfect one, an exact bound."""
    reals, fakes = np.sort(real), np.sort(fake)
    of_fake = (np.searchsorted(reals, fake, "left") + np.searchsorted(reals, fake, "right")) / 2 / len(real)
    of_real = (np.searchsorted(fakes, real, "left") + np.searchsorted(fakes, real, "right")) / 2 / len(fake)
    auc = float(of_fake.mean())
    variance = float(of_fake.var(ddof=1) / len(fake) + of_real.var(ddof=1) / len(real))
    if variance == 0 or auc in (0.0, 1.0):  # all or none of the smaller class, exactly
        bound = 0.025 ** (1 / min(len(real), len(fake)))
        return (auc, bound, 1.0) if auc > 0.5 else (auc, 0.0, 1 - bound)
    error = math.sqrt(variance) / (auc * (1 - auc))
    centre = math.log(auc / (1 - auc))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, centre + s * _Z * error)))) for s in (-1, 1))
    return auc, low, high
