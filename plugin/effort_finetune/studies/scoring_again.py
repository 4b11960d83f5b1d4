"""Scoring a dataset again with something changed, each way once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import nn

from effort_finetune.core.device import choose_device
from effort_finetune.core.errors import UserError
from effort_finetune.core.metrics import binary_metrics
from effort_finetune.core.precision import resolve_precision
from effort_finetune.data.folder_part import TrainedFolder
from effort_finetune.data.frames import FrameDataset
from effort_finetune.evaluate.dataset_scores import score_dataset
from effort_finetune.evaluate.evaluation import build, open_datasets
from effort_finetune.evaluate.predictions import probability
from effort_finetune.evaluate.video import grouped
from effort_finetune.model.chosen_detector import build_host_detector, choose_detector
from effort_finetune.model.preprocessing import obey
from effort_finetune.studies.difference_factors import Reading, Variant
from effort_finetune.weights.trained_on import told_by

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.collect import FrameRow
    from effort_finetune.host import Host

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class ScoringAgain:
    """Scores one dataset in many variants; no frame is scored twice in the same way, no weights loaded twice.

    Args:
        host: The open host.
        dataset: The dataset as the settings name it.
    """

    def __init__(self, host: Host, dataset: str) -> None:
        self.host, self.dataset = host, dataset
        self._read: dict[tuple[str, str], tuple[list[FrameRow], Floats]] = {}
        self._known: dict[tuple[str, str], dict[str, float | None]] = {}
        self._models: dict[str, nn.Module] = {}

    def __call__(self, variant: Variant) -> dict[str, float | None]:
        """Returns all numbers of a variant by ``<level>_<metric>``.

        Raises:
            UserError: If it cannot be measured here.
        """
        return numbers(*self._scores(variant), variant.reading)

    def _scores(self, variant: Variant) -> tuple[list[FrameRow], Floats]:
        """Returns the frames of a variant that can be read, and their log-odds."""
        settings, weights = variant.settings, variant.weights
        key = settings.digest(), str(weights)
        if key not in self._read:
            told = () if weights is None else told_by(weights).trained_on
            trained = [TrainedFolder.of_record(entry) for entry in told]
            (dataset,) = open_datasets(self.host, settings, [self.dataset], "test", trained=trained).values()
            # Which frames are asked for changes no score of one; what a host's class makes of it may.
            alone = type(dataset) is FrameDataset
            known = self._known.setdefault((_of_a_frame(settings) if alone else key[0], key[1]), {})
            new = [row for row in dataset.rows if row.path not in known]
            if new:
                known |= self._log_odds(dataset, new, variant)
            rows = [row for row in dataset.rows if known[row.path] is not None]
            self._read[key] = rows, np.array([known[row.path] for row in rows], dtype=np.float64)
        return self._read[key]

    def _log_odds(
        self, dataset: FrameDataset, rows: Sequence[FrameRow], variant: Variant
    ) -> dict[str, float | None]:
        """Scores some rows of a dataset; ``None`` for a frame that cannot be read."""
        settings = variant.settings
        part = copy.copy(dataset)
        part.rows = list(rows)
        model = self._model(settings, variant.weights)
        autocast = resolve_precision(settings.precision, next(model.parameters()).device).dtype
        name = f"{self.dataset}, way {len(self._known)}"
        scores = score_dataset(model, part, settings, autocast=autocast, desc=name)
        found: dict[str, float | None] = dict.fromkeys((row.path for row in rows), None)
        for index, logit in zip(scores.index, scores.logit, strict=True):
            found[rows[index].path] = float(logit)
        return found

    def _model(self, settings: Settings, weights: Path | None) -> nn.Module:
        if str(weights) not in self._models:
            device = choose_device(settings.device)
            detector = choose_detector(settings, self.host, training=False)
            if detector.is_ours:
                # The pixels are the variant's affair, the tower is not.
                own = settings.changed(pretrained_weights=None if weights is None else str(weights))
                model: nn.Module = build(own)
            else:
                model = build_host_detector(detector, settings, self.host, weights)
            self._models[str(weights)] = model.to(device)
        return self._models[str(weights)]


def obeyed(settings: Settings, weights: Path) -> Settings:
    """Returns the settings with what the weights state in place of defaults.

    Raises:
        UserError: If the weights cannot be read.
    """
    if not weights.exists():
        raise UserError(
            "the first result's weights",
            got=f"{weights}, which does not exist",
            expected="the file it was measured with",
            next_step="name it by --weights",
        )
    return obey(settings.changed(pretrained_weights=str(weights)))


def _of_a_frame(settings: Settings) -> str:
    """Returns a digest of the settings without those that only say which frames are read."""
    every = settings.frame_num.model_copy(update={"test": 1})
    return settings.changed(frame_num=every, frame_sampling="uniform").digest()


def numbers(rows: Sequence[FrameRow], logit: Floats, reading: Reading) -> dict[str, float | None]:
    """Returns every metric of both levels by one reading of the scores.

    Args:
        rows: The frames that were scored.
        logit: ``[N]``, their log-odds of fake.
        reading: What is made of them.
    """
    label, prob = np.array([row.label for row in rows], dtype=np.int64), probability(logit)
    names = {
        "index": [row.video for row in rows],
        "folder": [PurePosixPath(row.path.replace("\\", "/")).parent.name for row in rows],
        "frame": [str(i) for i in range(len(rows))],
    }[reading.grouping]
    numbered = {name: i for i, name in enumerate(dict.fromkeys(names))}
    group = np.array([numbered[name] for name in names], dtype=np.int64)
    threshold = reading.threshold if reading.rule == ">" else float(np.nextafter(reading.threshold, -np.inf))
    found: dict[str, float | None] = {}
    for level, (y, p) in {
        "frame": (label, prob),
        "video": _videos(label, prob, logit, group, reading.video_score),
    }.items():
        values = binary_metrics(y, p, threshold=threshold)
        found |= {f"{level}_{name}": v for name, v in values.items() if v is None or isinstance(v, float)}
    return found


def _videos(label: Ints, prob: Floats, logit: Floats, group: Ints, how: str) -> tuple[Ints, Floats]:
    count = int(group.max(initial=-1)) + 1
    frames, fakes, score = grouped(group, label, logit if how == "logit mean" else prob, count)
    if how == "logit mean":
        score = 1.0 / (1.0 + np.exp(-score))
    elif how != "mean":
        of_video: dict[str, Callable[[Floats], np.floating]] = {"max": np.max, "median": np.median}
        order = np.argsort(group, kind="stable")
        parts = np.split(prob[order], np.cumsum(frames)[:-1])
        score = np.array([of_video[how](part) for part in parts], dtype=np.float64)
    return (fakes > 0).astype(np.int64), score
