"""The dataset class of the bench: a JSON index over face crops in LMDB or plain files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from .augmentation import build_augmentation
from .errors import DatasetError, MissingFrameError
from .index import collect_videos, sample_frames, split_name
from .storage import FileStore, FrameStore, LmdbStore, lmdb_path

ROOT = Path(__file__).resolve().parents[2]
MODES = ("train", "val", "test")
LANDMARKS = 81


def _names(value: str | Sequence[str]) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DatasetError(f"dataset '{repeated[0]}' is named twice")
    return names


class DeepfakeAbstractBaseDataset(Dataset):
    """Frames of one split of one or more datasets.

    Which datasets: ``config['train_dataset']`` in mode train, ``config['test_dataset']`` in mode test,
    ``config['val_dataset']`` (the training sets when it is not given) in mode val; a name or a list of names.
    Relative folders in ``config`` are relative to the DeepfakeBench root. The object holds paths only, so it
    can be pickled; LMDB files are opened on first use in each process.

    Args:
        config: Reads ``dataset_json_folder, lmdb, lmdb_dir, rgb_dir, label_dict, compression, frame_num,
            frame_sampling, resolution, mean, std, use_data_augmentation, data_aug, with_landmark,
            with_mask``.
        mode: ``train``, ``val`` or ``test``; augmentation happens in train only.

    Attributes:
        data_dict: ``{'image': paths, 'label': labels}``, one entry per frame, paths as the index writes them,
            labels as in ``label_dict`` (0 real, above 0 fake).
        video_name_list: Unique video name of each frame.

    Raises:
        DatasetError: Unknown dataset, missing JSON or LMDB, label not in ``label_dict``, or an empty split.
    """

    def __init__(self, config: Mapping[str, Any], mode: str = "train") -> None:
        if mode not in MODES:
            raise DatasetError(f"mode is '{mode}', expected one of {', '.join(MODES)}")
        self.config = config
        self.mode = mode
        self.compression = config.get("compression", "c23")
        frame_num = config.get("frame_num") or {}
        self.frame_num = frame_num.get(mode, frame_num.get("train") if mode == "val" else None)
        wanted = config.get(f"{mode}_dataset") or (config["train_dataset"] if mode == "val" else None)
        if not wanted:
            raise DatasetError(f"{mode}_dataset names no dataset")
        self.dataset_list = _names(wanted)

        paths: list[str] = []
        labels: list[int] = []
        self.video_name_list: list[str] = []
        for name in self.dataset_list:
            frames, targets, videos = self.collect_img_and_label_for_one_dataset(name)
            paths += frames
            labels += targets
            self.video_name_list += videos
        self.data_dict = {"image": paths, "label": labels}
        self.store = self._open_store()
        self._augmentation: tuple[int, Any] | None = None
        if self._augments:
            # Wrong limits show now and not in a worker, and workers inherit the imported library.
            self._seeded_augmentation()

    @property
    def _augments(self) -> bool:
        return self.mode == "train" and bool(self.config.get("use_data_augmentation"))

    def _folder(self, key: str) -> Path:
        return ROOT / Path(self.config[key]).expanduser()

    def _open_store(self) -> FrameStore:
        if not self.config.get("lmdb", False):
            return FileStore(self._folder("rgb_dir"), ROOT)
        folder = self._folder("lmdb_dir")
        names = [split_name(name, self.compression)[0] for name in self.dataset_list]
        return LmdbStore([lmdb_path(folder, name) for name in names])

    def collect_img_and_label_for_one_dataset(
        self, dataset_name: str
    ) -> tuple[list[str], list[int], list[str]]:
        """List the frames of one dataset in this object's split, at most ``frame_num`` per video.

        Returns:
            Three lists of one length: frame paths, labels, unique video names.

        Raises:
            DatasetError: The index cannot be used, or the split is empty.
        """
        videos = collect_videos(
            self._folder("dataset_json_folder"),
            dataset_name,
            split=self.mode,
            compression=self.compression,
            label_dict=self.config["label_dict"],
        )
        paths: list[str] = []
        labels: list[int] = []
        names: list[str] = []
        sampling = self.config.get("frame_sampling", "uniform")
        for video in videos:
            frames = sample_frames(video.frames, self.frame_num, sampling=sampling)
            paths += frames
            labels += [video.label] * len(frames)
            names += [video.name] * len(frames)
        return paths, labels, names

    def _decode(self, path: str, flags: int) -> np.ndarray:
        image = cv2.imdecode(np.frombuffer(self.store.read(path), dtype=np.uint8), flags)
        if image is None:
            raise MissingFrameError(f"frame '{path}' is there but is not a readable image")
        return image

    def load_rgb(self, file_path: str) -> np.ndarray:
        """Read a crop and resize it to ``resolution``.

        Returns:
            uint8 [resolution, resolution, 3], RGB.

        Raises:
            MissingFrameError: The frame is absent or no image; the message names it.
        """
        size = self.config["resolution"]
        image = cv2.cvtColor(self._decode(file_path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)

    def load_mask(self, file_path: str) -> np.ndarray:
        """Read the forgery mask that belongs to a frame: float32 [resolution, resolution, 1] in 0..1.

        Raises:
            MissingFrameError: There is none.
        """
        size = self.config["resolution"]
        mask = self._decode(file_path.replace("frames", "masks"), cv2.IMREAD_GRAYSCALE)
        return (cv2.resize(mask, (size, size)) / np.float32(255.0)).astype(np.float32)[..., None]

    def load_landmark(self, file_path: str, crop_size: int = 256) -> np.ndarray:
        """Read the 81 landmarks of a frame in pixels of the resized image: float32 [81, 2].

        Args:
            file_path: Path of the frame.
            crop_size: Side of the stored crop in pixels, in which the stored landmarks are given.

        Raises:
            MissingFrameError: There are none.
        """
        path = file_path.replace("frames", "landmarks").replace(".png", ".npy")
        raw = self.store.read(path)
        # LMDB values are the bare numbers; files carry numpy's header.
        is_file = raw.startswith(b"\x93NUMPY")
        points = np.load(io.BytesIO(raw)) if is_file else np.frombuffer(raw, dtype=np.uint32)
        if points.size != LANDMARKS * 2:
            raise MissingFrameError(f"'{path}' holds {points.size} numbers, expected {LANDMARKS * 2}")
        return points.reshape(LANDMARKS, 2).astype(np.float32) * (self.config["resolution"] / crop_size)

    def _seeded_augmentation(self) -> Any:
        """Return the pipeline of this process; each loader worker gets its own random stream."""
        worker = get_worker_info()
        seed = worker.seed if worker is not None else torch.initial_seed()
        if self._augmentation is None or self._augmentation[0] != seed:
            pipeline = build_augmentation(
                self.config.get("data_aug") or {}, seed=seed, landmarks=bool(self.config.get("with_landmark"))
            )
            self._augmentation = (seed, pipeline)
        return self._augmentation[1]

    def data_aug(
        self, img: np.ndarray, landmark: np.ndarray | None = None, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Augment an image (uint8 [H, W, 3]) and, alike, its landmarks [81, 2] and mask [H, W, 1]."""
        data: dict[str, Any] = {"image": img}
        if landmark is not None:
            data["keypoints"] = landmark
        if mask is not None:
            data["mask"] = mask
        out = self._seeded_augmentation()(**data)
        points = None if landmark is None else np.asarray(out["keypoints"], dtype=np.float32)
        return out["image"], points, None if mask is None else out["mask"]

    def to_tensor(self, img: np.ndarray) -> torch.Tensor:
        """Turn uint8 [H, W, 3] into float32 [3, H, W] in 0..1."""
        return torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1))).float().div_(255.0)

    def normalize(self, img: torch.Tensor) -> torch.Tensor:
        """Subtract ``mean`` and divide by ``std`` per channel of float [3, H, W]."""
        mean = torch.tensor(self.config["mean"], dtype=img.dtype).view(3, 1, 1)
        std = torch.tensor(self.config["std"], dtype=img.dtype).view(3, 1, 1)
        return (img - mean) / std

    def _mask_or_zeros(self, path: str, label: int) -> np.ndarray:
        try:
            return self.load_mask(path)
        except MissingFrameError:
            # Nothing is forged in a real face, so datasets store no mask for it.
            if label > 0:
                raise
            return np.zeros((self.config["resolution"], self.config["resolution"], 1), dtype=np.float32)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, torch.Tensor | None, torch.Tensor | None]:
        path, label = self.data_dict["image"][index], self.data_dict["label"][index]
        image = self.load_rgb(path)
        landmark = self.load_landmark(path) if self.config.get("with_landmark") else None
        mask = self._mask_or_zeros(path, label) if self.config.get("with_mask") else None
        if self._augments:
            image, landmark, mask = self.data_aug(image, landmark, mask)
        return (
            self.normalize(self.to_tensor(image)),
            label,
            None if landmark is None else torch.from_numpy(landmark),
            None if mask is None else torch.from_numpy(np.ascontiguousarray(mask)),
        )

    @staticmethod
    def collate_fn(batch: Sequence[tuple[Any, ...]]) -> dict[str, torch.Tensor | None]:
        """Stack items into a batch.

        Returns:
            ``image`` float [B, 3, H, W], ``label`` int64 [B], ``landmark`` float [B, 81, 2] and ``mask``
            float [B, H, W, 1]; the last two are None when the dataset does not load them.
        """
        images, labels, landmarks, masks = zip(*batch, strict=True)
        return {
            "image": torch.stack(images),
            "label": torch.tensor(labels, dtype=torch.int64),
            "landmark": None if landmarks[0] is None else torch.stack(landmarks),
            "mask": None if masks[0] is None else torch.stack(masks),
        }

    def __getstate__(self) -> dict[str, Any]:
        # An augmentation pipeline carries a random state that a worker must not share.
        return {**self.__dict__, "_augmentation": None}

    def __len__(self) -> int:
        return len(self.data_dict["image"])
