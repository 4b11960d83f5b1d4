"""A host's own dataset class as the source of frames (``loader: host``): its rows and pixels, our record.

The class is made by its own constructor, one object for each dataset, and its own ``collate_fn`` makes the
batches; order, seeds and what is counted are ours. What it would do in silence is not let happen: a frame
that it cannot read is missing and not another frame, and no LMDB is open when a worker is forked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from effort_finetune.core.errors import UserError
from effort_finetune.core.seeding import derive, seed_everything
from effort_finetune.data import lmdb_pool
from effort_finetune.data.host_listing import generators_kept, plain, quiet

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.data.index import DatasetIndex
    from effort_finetune.host import Host

WAY_OUT = "leave loader out: rows then come from the index, pixels from LMDB or files"
_PROBED = 3  # frames tried before a run begins
_REASON = 300  # characters of a reason that are shown


class _UnreadableError(BaseException):
    """Passes the ``except Exception`` by which hosts put another frame in the place of one."""


class HostReader:
    """One dataset and split as the host's class reads it.

    Args:
        host: Its dataset class is imported.
        settings: What the class reads as its ``config``, with the host's own defaults below it.
        index: The dataset's index.
        split: ``train``, ``val`` (which hosts do not know: read as ``test``) or ``test``.
        asked: Frames per video.

    Attributes:
        dataset: The host's object.
        listing: Path as the class lists it, and its class of ``label_dict``, in the class's order.

    Raises:
        UserError: The class does not import, does not fit, or raises; one line with the reason.
    """

    def __init__(
        self, host: Host, settings: Settings, index: DatasetIndex, *, split: str, asked: int
    ) -> None:
        self.what = f"the host's dataset class {host.dataset_class.__name__} (loader: host)"
        config = _config(host, settings, index, split, asked)
        try:
            with quiet(), generators_kept():
                seed_everything(derive(settings.manualSeed, "host listing", index.name) % 2**32)
                self.dataset = _made(host.dataset_class, config, split)
                paths, labels = _listed(self.dataset)
        except Exception as error:  # foreign code raises what it likes
            raise self.unfit(error) from error
        if any(isinstance(path, list | tuple) for path in paths):
            raise UserError(self.what, got="a listing of clips", expected="frames", next_step=WAY_OUT)
        self.listing = [(str(path), int(label)) for path, label in zip(paths, labels, strict=True)]
        self._at = {path: position for position, (path, _) in enumerate(self.listing)}
        self._calls, self._own = 0, self.dataset.load_rgb
        self.dataset.load_rgb = self._load_rgb
        self._probe(settings.resolution)

    def unfit(self, error: Exception | str) -> UserError:
        """Returns the one line for a class that cannot be used."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return UserError(self.what, got=" ".join(text.split())[:_REASON], next_step=WAY_OUT)

    def item(self, path: str, seed: int | None) -> Any:
        """Returns the host's item of a frame, ``None`` where it cannot be read.

        Args:
            path: As the class lists it.
            seed: Of the class's augmentation; ``None`` where it draws nothing.
        """
        self._calls = 0
        with generators_kept():
            if seed is not None:
                seed_everything(seed % 2**32)
                reseed = getattr(getattr(self.dataset, "transform", None), "set_random_seed", None)
                if reseed is not None:  # albumentations 2 draws from generators of its own
                    reseed(seed % 2**32)
            try:
                item = self.dataset[self._at[path]]
            except _UnreadableError:
                return None
        return item if self._calls == 1 else None

    def picture(self, path: str) -> np.ndarray | None:
        """Returns a frame before augmentation, ``uint8[H, W, 3]`` RGB; ``None`` where it cannot be read."""
        try:
            return np.asarray(self._own(path))
        except Exception:  # foreign code raises what it likes
            return None

    def _load_rgb(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._calls += 1
        try:
            return self._own(path, *args, **kwargs)
        except Exception as error:
            raise _UnreadableError from error

    def _probe(self, side: int) -> None:
        """Refuses a class of which no frame can be read, or whose batches are no batches of frames."""
        reason = ""
        for path, _ in self.listing[:_PROBED]:
            try:
                self._own(path)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            try:
                item = self.item(path, 0)
                shape = None if item is None else tuple(self.dataset.collate_fn([item])["image"].shape)
            except Exception as error:
                raise self.unfit(error) from error
            if shape is None:
                raise self.unfit("items that are not read by its load_rgb, once each")
            if shape != (1, 3, side, side):
                raise self.unfit(f"images of the shape {shape[1:]} instead of {(3, side, side)}")
            return
        raise self.unfit(f"it reads none of its first {min(_PROBED, len(self.listing))} frames: {reason}")


def _made(own: type, config: dict[str, Any], split: str) -> Any:
    """Makes the object, in a mode that its constructor knows, listing the split that is asked for."""
    lmdb_pool.share_environments(own)

    base: Any = own

    class Reader(base):
        mode: str

        def collect_img_and_label_for_one_dataset(self, *args: Any, **kwargs: Any) -> Any:
            mode, self.mode = self.mode, split
            try:
                return super().collect_img_and_label_for_one_dataset(*args, **kwargs)
            finally:
                self.mode = mode

        def init_data_aug_method(self) -> Any:
            # Hosts build it for tests too, with arguments that albumentations 2 refuses.
            return super().init_data_aug_method() if augments else None

    augments = split == "train" and config["use_data_augmentation"]
    Reader.__name__ = own.__name__
    return Reader(config, mode="train" if split == "train" else "test")


def _config(host: Host, settings: Settings, index: DatasetIndex, split: str, asked: int) -> dict[str, Any]:
    return {
        **{"with_mask": False, "with_landmark": False, "video_mode": False, "dataset_root_rgb": ""},
        **host.default_settings("train" if split == "train" else "test"),
        **settings.to_dict(),
        "dataset_json_folder": str(index.path.parent),
        "lmdb_dir": str(host.resolve(settings.lmdb_dir)),
        "rgb_dir": str(host.resolve(settings.rgb_dir)),
        "compression": index.compression,
        "frame_num": dict.fromkeys(("train", "val", "test"), asked),
        "train_dataset": [index.name],
        "test_dataset": index.name,
    }


def _listed(dataset: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Paths and labels, under the names that hosts' own loops read."""
    if (both := getattr(dataset, "data_dict", None)) is not None:
        return both["image"], both["label"]
    return dataset.image_list, dataset.label_list


def shared_order(listing: Sequence[tuple[str, int]], known: Sequence[str]) -> list[tuple[str, int]]:
    """Returns a listing in the order of the index, whatever a host's shuffle made of it.

    Args:
        listing: Of :class:`HostReader`.
        known: All frames of the split as the index lists them; others come last.
    """
    place = {plain(path): number for number, path in enumerate(known)}
    return sorted(listing, key=lambda entry: (place.get(plain(entry[0]), len(place)), entry[0]))
