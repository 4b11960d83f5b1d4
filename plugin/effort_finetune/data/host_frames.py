"""The frames of a split, by us or by the host's own dataset class, as ``loader`` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.data.augment import item_seed
from effort_finetune.data.collect import FrameRow, collect_rows
from effort_finetune.data.dataset_name import folder_of
from effort_finetune.data.folder_part import TrainedFolder
from effort_finetune.data.frames import GROUPING_FIX, FrameDataset, Missing, open_frames
from effort_finetune.data.host_dataset import WAY_OUT, HostReader, shared_order
from effort_finetune.data.host_listing import plain
from effort_finetune.data.index import Video, load_index, with_own_labels
from effort_finetune.data.listed_rows import described, listed_part, listed_protocol
from effort_finetune.data.sources import FrameSource, open_source

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

_FIXES = (
    "rows come in the index's order, no shuffle from the global generator",
    "a frame that the host's class cannot read is reported as missing, never replaced by another one",
    GROUPING_FIX,
    "every dataset has an object and an LMDB of its own; environments are opened per process",
)


def open_split(
    host: Host,
    settings: Settings,
    *,
    split: str,
    names: Sequence[str],
    trained: Sequence[TrainedFolder] = (),
) -> FrameDataset:
    """Opens one split of one or several datasets by the loader that the settings name.

    Args:
        host: Host that owns the data.
        settings: Resolved settings.
        split: ``train``, ``val`` or ``test``.
        names: Datasets, without repetition; by name alone with ``loader: host``.
        trained: Folders that the model is trained on.

    Raises:
        UserError: A dataset cannot be opened, or the host's class cannot be used or be asked for this.
    """
    if settings.loader == "plugin" or not names:
        return open_frames(host, settings, split=split, names=names, trained=trained)
    _refuse_what_is_ours(host, settings, names)
    asked = settings.frame_num.test if split == "test" else settings.frame_num.train
    readers: dict[str, HostReader] = {}
    parts: dict[str, dict[str, Any]] = {}
    rows: list[FrameRow] = []
    for name in names:
        index = load_index(host, settings, name)
        own = with_own_labels(settings, index)
        # A malformed index is refused in our words, not in the class's.
        collect_rows(own, index, split=split, asked=asked, sampling="first")
        readers[name] = reader = HostReader(host, own, index, split=split, asked=asked)
        known = [path for item in index.walk(split) if isinstance(item, Video) for path in item.frames]
        part = listed_part(own, index, shared_order(reader.listing, known), split, asked)
        rows += part.rows
        parts[name] = described(own, index, part, split, asked)
    class_name = host.dataset_class.__name__
    protocol = listed_protocol(settings, split, class_name, rows, parts, fixes=_FIXES)
    return HostFrames(host, settings, split, rows, readers, protocol, asked)


class HostFrames(FrameDataset):
    """Frames as the host's dataset class lists, reads and augments them, in batches of its ``collate_fn``.

    Args:
        host: The host.
        settings: Of the run.
        split: The split.
        rows: Rows with paths as the class lists them.
        readers: The class's objects, by dataset; a worker that starts anew makes its own.
        protocol: See :class:`FrameDataset`.
        asked: Frames asked for per video.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        split: str,
        rows: Sequence[FrameRow],
        readers: dict[str, HostReader],
        protocol: dict[str, Any],
        asked: int,
    ) -> None:
        super().__init__(
            rows,
            {
                name: source
                for name in dict.fromkeys(row.dataset for row in rows)
                if (source := _source(host, settings, name, rows)) is not None
            },
            resolution=settings.resolution,
            mean=settings.mean,
            std=settings.std,
            frames_asked=asked,
            protocol=protocol,
        )
        self._opening = host, settings, split
        self._readers = readers

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}  # hosts' objects hold what cannot be pickled

    def __getitem__(self, index: int) -> dict[str, Any] | Missing:
        row = self.rows[index]
        seed, epoch = self._epoch.tolist()
        item = self._reader(row.dataset).item(row.path, item_seed(seed, epoch, index))
        if item is None:
            return Missing(index, "undecodable")
        return {"item": item, "dataset": row.dataset, "index": index}

    def collate(self, items: Sequence[dict[str, Any] | Missing]) -> dict[str, Any]:
        """Makes the host's batch, with ``index`` and ``missing`` as in
        :func:`effort_finetune.data.loader.collate`."""
        present = [item for item in items if not isinstance(item, Missing)]
        batch: dict[str, Any] = {"image": torch.empty(0, 3, 0, 0), "label": torch.empty(0, dtype=torch.int64)}
        if present:
            batch = self._reader(present[0]["dataset"]).dataset.collate_fn([item["item"] for item in present])
        return {
            **{"landmark": None, "mask": None},
            **batch,
            "index": torch.tensor([item["index"] for item in present], dtype=torch.int64),
            "missing": torch.tensor([i.index for i in items if isinstance(i, Missing)], dtype=torch.int64),
        }

    def load_rgb(self, index: int) -> np.ndarray | None:
        """The frame as the host's class reads it, before augmentation and normalisation."""
        row = self.rows[index]
        return self._reader(row.dataset).picture(row.path)

    def encoded(self, index: int) -> bytes | None:
        """The bytes of a picture; None where only the host's class finds it."""
        return super().encoded(index) if self.rows[index].dataset in self._sources else None

    def place(self, row: FrameRow) -> tuple[str, str]:
        """Where a frame is read from; by its path alone where only the host's class finds it."""
        return super().place(row) if row.dataset in self._sources else ("", plain(row.path))

    def _reader(self, name: str) -> HostReader:
        if name not in self._readers:
            host, settings, split = self._opening
            index = load_index(host, settings, name)
            own = with_own_labels(settings, index)
            self._readers[name] = HostReader(host, own, index, split=split, asked=self.frames_asked)
        return self._readers[name]


def _refuse_what_is_ours(host: Host, settings: Settings, names: Sequence[str]) -> None:
    folders = [name for name in names if folder_of(host, settings, name) is not None]
    ours = {
        "a dataset by its folder": folders,
        "fit": settings.fit,
        "data_aug.extra": list(settings.data_aug.extra),
        "interpolation": settings.interpolation if settings.interpolation != "bicubic" else None,
    }
    for what, value in ours.items():
        if value:
            raise UserError(
                "loader 'host'",
                got=f"{what} ({value}), which the host's class does not read",
                expected="datasets of the host's index and the host's own keys",
                next_step=WAY_OUT,
            )


def _source(host: Host, settings: Settings, name: str, rows: Sequence[FrameRow]) -> FrameSource | None:
    try:
        return open_source(host, settings, name, [row.path for row in rows if row.dataset == name])
    except UserError:  # the host's class may know a place that we do not
        return None
