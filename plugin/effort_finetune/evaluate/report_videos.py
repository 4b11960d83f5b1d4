"""The videos of a dataset in a report: each with its scores and frames, the worst verdicts first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effort_finetune.core.escaping import visible
from effort_finetune.evaluate.score_file import ScoreFile

#: Bytes that the videos of all datasets may take in a page; the whole stays below 3 MB.
BUDGET = 2_000_000
_MARKUP, _CELL, _FRAMES = 75, 20, 45
CALLED = {0: "real", 1: "fake"}


@dataclass(frozen=True)
class VideoRow:
    """One video.

    Attributes:
        name: Its identity without the dataset.
        label: ``real`` or ``fake``.
        scores: Its score in each run; ``None`` where a run has none.
        wrong: Whether the last run's verdict is wrong.
        frames: Each frame's name and probability in the last run; empty where they are left out.
        count: Its frames.
    """

    name: str
    label: str
    scores: tuple[float | None, ...]
    wrong: bool
    frames: str
    count: int


@dataclass(frozen=True)
class VideoTable:
    """The videos of a dataset that a page has room for.

    Attributes:
        rows: The worst verdicts of the last run first.
        left_out: A sentence on what the page has no room for; empty where all is there.
        wrong: Wrong verdicts of the last run, of all videos.
        videos: All videos.
    """

    rows: list[VideoRow]
    left_out: str
    wrong: int
    videos: int


@dataclass(frozen=True)
class Videos:
    """The videos of one score file.

    Attributes:
        names: ``V`` identities.
        label: ``int64[V]``.
        prob: ``float64[V]``, mean probability of fake.
        frames: Rows of the score file, by identity.
    """

    names: tuple[str, ...]
    label: np.ndarray
    prob: np.ndarray
    frames: Mapping[str, list[int]]

    def errors(self, threshold: float) -> np.ndarray:
        """Returns how far each score lies on the wrong side of the threshold, negative on the right one."""
        return np.where(self.label == 1, threshold - self.prob, self.prob - threshold)

    def wrong(self, threshold: float) -> np.ndarray:
        """Returns which verdicts are wrong; a score on the threshold is called real."""
        return (self.prob > threshold) != (self.label == 1)

    def worst_first(self, threshold: float) -> list[int]:
        """Returns the videos in the order of their errors; every wrong verdict comes before a right one."""
        return np.lexsort((-self.errors(threshold), ~self.wrong(threshold))).tolist()


def videos_of(scores: ScoreFile) -> Videos:
    """Returns the videos of a score file, in order of first appearance."""
    frames: dict[str, list[int]] = {}
    for i, name in enumerate(scores.video):
        frames.setdefault(name, []).append(i)
    return Videos(tuple(frames), *scores.by_video(), frames)


def video_table(
    dataset: str, runs: Sequence[ScoreFile | None], threshold: float, *, room: int
) -> VideoTable | None:
    """Returns the videos of a dataset, ``None`` where the last run has no scores of it.

    Args:
        dataset: Its name, left out of the videos' own.
        runs: The scores of each run.
        threshold: The last run's decision threshold.
        room: Bytes they may take.
    """
    last = runs[-1]
    if last is None:
        return None
    videos = videos_of(last)
    others = [None if scores is None else _by_name(scores) for scores in runs[:-1]]
    order, wrong = videos.worst_first(threshold), videos.wrong(threshold)
    rows, spent = [], 0
    for i in order:
        name = videos.names[i]
        own = [None if of is None else of.get(name) for of in others]
        row = VideoRow(
            visible(name.removeprefix(f"{dataset}/")), CALLED[int(videos.label[i])],
            (*own, float(videos.prob[i])), bool(wrong[i]), "", len(videos.frames[name]),
        )  # fmt: skip
        spent += len(row.name.encode()) + _MARKUP + _CELL * len(runs)
        if spent > room:
            break
        rows.append(row)
    said = []
    if len(rows) < len(order):
        said.append(f"{len(rows)} of {len(order)} videos are listed, the worst verdicts first")
    listed = 0
    for place, row in enumerate(rows):
        frames = _frames(last, videos.frames[videos.names[order[place]]])
        spent += len(frames.encode()) + _FRAMES
        if spent > room:
            break
        listed += 1
        rows[place] = VideoRow(row.name, row.label, row.scores, row.wrong, frames, row.count)
    if listed < len(rows):
        said.append(f"the frames of the first {listed} stand beside them")
    left_out = f"For want of room {' and '.join(said)}; all are in the score file." if said else ""
    return VideoTable(rows, left_out, int(wrong.sum()), len(order))


def _by_name(scores: ScoreFile) -> dict[str, float]:
    videos = videos_of(scores)
    return dict(zip(videos.names, videos.prob.tolist(), strict=True))


def _frames(scores: ScoreFile, rows: Sequence[int]) -> str:
    paths = [scores.frame[i].replace("\\", "/") for i in rows]
    names = [path.rpartition("/")[2].rpartition(".")[0] or path for path in paths]
    of_one = len({path.rpartition("/")[0] for path in paths}) == 1
    shown = names if of_one else paths
    return ", ".join(f"{visible(name)} {scores.prob[i]:.2f}" for name, i in zip(shown, rows, strict=True))
