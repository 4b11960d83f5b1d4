"""The dataset that training and evaluation read: upstream's rows and pixels without what corrupts results."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from effort_finetune.core.crop_recipe import CropRecipe
from effort_finetune.core.errors import UserError
from effort_finetune.core.interpolation import OPENCV_FLAG, Interpolation
from effort_finetune.data.augment import Augmentation, item_seed
from effort_finetune.data.collect import FrameRow
from effort_finetune.data.corruptions import Corrupting
from effort_finetune.data.dataset_name import labels_of
from effort_finetune.data.dataset_part import open_part
from effort_finetune.data.decode import decode
from effort_finetune.data.fit import Fit, fitted
from effort_finetune.data.folder_part import TrainedFolder
from effort_finetune.data.index import SPLITS
from effort_finetune.data.normalisation import normalisation_table, normalise
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.data.sources import FileSource, FrameSource

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

#: Of results by our metrics; a host's own go by the folder's name.
GROUPING_FIX = "a video is dataset, label group, compression and name, not its folder's name"
FIXES = (
    "rows keep the index's order, no shuffle from the global generator",
    "an unreadable frame is reported as missing, never replaced by another one",
    GROUPING_FIX,
    "frame paths are read with slashes or backslashes, with or without ./datasets",
)
UNIFORM_FIX = "frames are sampled over the whole video and in order of time, not as the first ones"
LMDB_FIXES = (
    "LMDB environments are opened per process at the first read and shared by path",
    "every training set reads its own LMDB",
)


@dataclass(frozen=True, slots=True)
class Missing:
    """Takes the place of a frame that is not there or does not decode.

    Attributes:
        index: Row of the dataset.
        reason: ``absent`` or ``undecodable``.
    """

    index: int
    reason: str


class FrameDataset(Dataset[Any]):
    """Frames of one split of one or several datasets.

    An item is ``{'image': FloatTensor[3, H, W], 'label': int, 'index': int}``, or :class:`Missing`. Pixels
    are the host's: BGR decoding, RGB, bicubic resizing to ``resolution``, division by 255, ``mean`` and
    ``std``.

    Attributes:
        rows: One row per frame, in the order of datasets, videos and time.
        protocol: What was asked for and done, for the results' protocol block; JSON types only.
        frames_asked: Frames asked for per video.
    """

    def __init__(
        self,
        rows: Sequence[FrameRow],
        sources: Mapping[str, FrameSource],
        *,
        resolution: int,
        mean: Sequence[float],
        std: Sequence[float],
        frames_asked: int,
        protocol: Mapping[str, Any],
        augmentation: Augmentation | None = None,
        fits: Mapping[str, Fit] | None = None,
        interpolation: Interpolation = "bicubic",
    ) -> None:
        self.rows = list(rows)
        self.protocol = dict(protocol)
        self.frames_asked = frames_asked
        self.resolution = resolution
        self.interpolation: Interpolation = interpolation
        self.augmentation = augmentation
        self._sources = dict(sources)
        self._fits = dict(fits or {})
        self._corrupting: Corrupting | None = None
        self._table = normalisation_table(mean, std)
        # In shared memory, so that workers which outlive an epoch see the next one's number.
        self._epoch = torch.zeros(2, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any] | Missing:
        row = self.rows[index]
        data = self._sources[row.dataset].read(row.path)
        if data is None:
            return Missing(index, "absent")
        seed, epoch = self._epoch.tolist()
        drawn = None if self.augmentation is None else item_seed(seed, epoch, index)
        corrupt = None if self._corrupting is None else partial(self._corrupting, item=row.path)
        image = self._decoded(data, row, seed=drawn, corrupt=corrupt)
        if image is None:
            return Missing(index, "undecodable")
        made = self.forged(index, image)
        if isinstance(made, Missing):
            return made
        if self.augmentation is not None and drawn is not None:
            made = self.augmentation(made, drawn)
        return {"image": normalise(made, self._table), "label": row.label, "index": index}

    def forged(self, index: int, image: np.ndarray) -> np.ndarray | Missing:
        """What a kind of frames makes of a decoded picture before it is augmented; here nothing."""
        return image

    def beside(self, row: FrameRow, path: str) -> bytes | None:
        """Another file of a row's dataset; None where there is none, or none that a fitted picture has."""
        return None if row.dataset in self._fits else self._sources[row.dataset].read(path)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Makes the augmentation draw for this epoch of the run with this seed, in all workers."""
        self._epoch.copy_(torch.tensor([seed, epoch]))

    def corrupted(self, corrupting: Corrupting) -> FrameDataset:
        """The same rows, every crop corrupted before it is resized; the protocol says so."""
        other = copy.copy(self)
        other._corrupting = corrupting
        other.protocol = {**self.protocol, "corruption": corrupting.to_dict()}
        return other

    def load_rgb(self, index: int) -> np.ndarray | None:
        """The resized frame before augmentation and normalisation.

        Returns:
            ``uint8[H, W, 3]``, RGB; None where the frame is missing.
        """
        row = self.rows[index]
        data = self._sources[row.dataset].read(row.path)
        return None if data is None else self._decoded(data, row)

    def _decoded(self, data: bytes, row: FrameRow, **how: Any) -> np.ndarray | None:
        fit = self._fits.get(row.dataset)
        return decode_rgb(data, self.resolution, fit, interpolation=self.interpolation, **how)

    def encoded(self, index: int) -> bytes | None:
        """The bytes of a picture as they are stored; None where it is missing."""
        row = self.rows[index]
        return self._sources[row.dataset].read(row.path)

    def stored_bytes(self, index: int) -> int:
        """The size of a picture as it is stored; 0 where it is missing."""
        row = self.rows[index]
        return self._sources[row.dataset].size(row.path)

    def recipes(self) -> tuple[CropRecipe | None, ...]:
        """How the pictures of each dataset were cut, in their order; None where nobody knows."""
        return tuple(CropRecipe.from_dict(part["crop_recipe"]) for part in self.protocol["datasets"].values())

    def place(self, row: FrameRow) -> tuple[str, str]:
        """Where a frame is read from, the same under whatever dataset's name it is listed."""
        source = self._sources[row.dataset]
        if isinstance(source, FileSource):
            return "", os.path.realpath(source.file(row.path))
        return source.location, row.path


def decode_rgb(
    data: bytes,
    resolution: int,
    fit: Fit | None = None,
    *,
    interpolation: Interpolation = "bicubic",
    seed: int | None = None,
    corrupt: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray | None:
    """Decodes an image and resizes it, by default as the host does (INTER_CUBIC, also when shrinking).

    Args:
        data: The encoded image.
        resolution: Side of the result.
        fit: How a picture becomes a square crop first; None for the crops of an index, which are ones.
        interpolation: How the crop is brought to the resolution.
        seed: Of the place that ``native`` takes in training.
        corrupt: Done to the square crop before it is resized.

    Returns:
        ``uint8[resolution, resolution, 3]``, RGB; None where the bytes are no picture that can be decoded.
    """
    try:
        image = decode(data)
    except Unreadable:
        return None
    return fitted(image, fit, resolution, interpolation=interpolation, seed=seed, corrupt=corrupt)


def open_frames(
    host: Host,
    settings: Settings,
    *,
    split: str,
    names: Sequence[str],
    trained: Sequence[TrainedFolder] = (),
) -> FrameDataset:
    """Opens one split of one or several datasets.

    ``train`` and ``val`` take ``frame_num.train`` frames per video, ``test`` takes ``frame_num.test``;
    ``train`` augments them where ``use_data_augmentation`` says so.

    Args:
        host: Host that owns the index and the LMDBs; its dataset class is only compared with.
        settings: Resolved settings.
        split: ``train``, ``val`` or ``test``, as the index names it; which one to use where ``val`` is
            absent is the caller's choice (``index.available_splits``).
        names: Datasets, by name or path, without repetition.
        trained: Folders that the model is trained on; of these a test gets the held-out share.

    Raises:
        UserError: Unknown dataset, unreadable index, missing or wrong LMDB, unknown label, empty split.
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {SPLITS}")
    if not names or len(set(names)) != len(names):
        raise UserError(
            f"datasets of the {split} split",
            got=", ".join(names) or "none",
            expected="one or more names, each once",
            next_step=f"set {'test' if split == 'test' else 'train'}_dataset",
        )
    asked = settings.frame_num.test if split == "test" else settings.frame_num.train
    labels = labels_of(settings, names)
    parts = [open_part(host, settings, name, labels[name], split, trained) for name in names]
    rows = [row for part in parts for row in part.collected.rows]
    sources = {part.label: part.source for part in parts}
    kinds = {part.source.kind for part in parts}
    augmentation = None
    if split == "train" and settings.use_data_augmentation:
        augmentation = Augmentation(settings.data_aug)
    protocol = {
        "split": split,
        "loader": "plugin",
        "frames_asked": asked,
        "sampling": settings.frame_sampling,
        "source": " and ".join(sorted(kinds)),
        "compression": settings.compression,
        "interpolation": OPENCV_FLAG[settings.interpolation],
        "resolution": settings.resolution,
        "mean": list(settings.mean),
        "std": list(settings.std),
        "label_map": {
            row.label_name: {"label_dict": row.class_id, "class": row.label}
            for row in {row.label_name: row for row in rows}.values()
        },
        "augmentation": augmentation.describe() if augmentation is not None else None,
        "datasets": {part.label: part.describe() for part in parts},
        "fixes": [
            *([UNIFORM_FIX] if settings.frame_sampling == "uniform" else []),
            *FIXES,
            *(LMDB_FIXES if "lmdb" in kinds else []),
        ],
    }
    return FrameDataset(
        rows,
        sources,
        resolution=settings.resolution,
        mean=settings.mean,
        std=settings.std,
        frames_asked=asked,
        protocol=protocol,
        augmentation=augmentation,
        fits={part.label: part.fit for part in parts if part.fit is not None},
        interpolation=settings.interpolation,
    )
