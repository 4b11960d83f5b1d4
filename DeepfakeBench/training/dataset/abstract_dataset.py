"""The dataset class of the bench: a JSON index over face crops in LMDB or plain files."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import torch
from config.loader import ROOT, HostError
from torch.utils.data import Dataset

FFPP = ("FaceForensics++", "FF-DF", "FF-F2F", "FF-FS", "FF-NT")
LANDMARKS = 81

#: One environment a process and path: lmdb 2 refuses a second, and none survives a fork.
_environments: dict[tuple[int, str], lmdb.Environment] = {}


class DeepfakeAbstractBaseDataset(Dataset):
    """Frames of one split of one or more datasets.

    Args:
        config: Reads ``<mode>_dataset`` (a name or a list of names), ``dataset_json_folder, lmdb, lmdb_dir,
            rgb_dir, label_dict, compression, frame_num, resolution, mean, std, use_data_augmentation,
            data_aug, with_landmark, with_mask``. Relative folders are relative to the DeepfakeBench folder.
        mode: ``train`` (augmented where the settings say so), ``val`` or ``test``.

    Attributes:
        data_dict: ``{'image': paths, 'label': labels}``, one entry per frame, paths as the index writes them,
            labels as in ``label_dict`` (0 real, above 0 fake).

    Raises:
        HostError: Unknown dataset, a label not in ``label_dict``, no LMDB, or an empty split.
    """

    def __init__(self, config: Mapping[str, Any], mode: str = "train") -> None:
        self.config, self.mode = config, mode
        self.compression = config.get("compression", "c23")
        self.frame_num = config["frame_num"].get(mode, config["frame_num"]["train"])
        names = config[f"{mode}_dataset"]
        self.dataset_list = [names] if isinstance(names, str) else list(names)
        listed = [self.collect_img_and_label_for_one_dataset(name) for name in self.dataset_list]
        self.data_dict = {
            "image": [path for paths, _, _ in listed for path in paths],
            "label": [label for _, labels, _ in listed for label in labels],
        }
        self.stores = self._stores() if config.get("lmdb") else []
        self._augmentation = None
        if mode == "train" and config.get("use_data_augmentation"):
            # The plugin's, which draws the same under every version of albumentations.
            from effort_finetune.config import settings_from_config
            from effort_finetune.data.augment import Augmentation

            self._augmentation = Augmentation(settings_from_config({"data_aug": config["data_aug"]}).data_aug)

    def collect_img_and_label_for_one_dataset(self, dataset_name: str) -> tuple[list, list, list]:
        """List the frames of one dataset in this object's split: ``frame_num`` a video, evenly spread.

        With ``frame_sampling: first`` they are the first ones, as in upstream.

        Args:
            dataset_name: A name with an index; ``<name>_c40`` takes that compression.

        Returns:
            Paths, labels and names of the videos, one entry per frame each.
        """
        name = dataset_name.removesuffix("_c40")
        compression = "c40" if name != dataset_name else self.compression
        file = ROOT / self.config["dataset_json_folder"] / f"{name}.json"
        try:
            groups = json.loads(file.read_text(encoding="utf-8"))[name]
        except (OSError, ValueError, KeyError) as error:
            raise HostError(f"dataset '{name}' has no index in {file}: {error}") from error
        paths: list[str] = []
        labels: list[int] = []
        videos: list[str] = []
        for group, splits in groups.items():
            listed = splits.get(self.mode, {})
            if listed and not any("frames" in entry for entry in listed.values()):
                listed = listed[compression]
            for video, entry in listed.items():
                if entry["label"] not in self.config["label_dict"]:
                    raise HostError(f"label '{entry['label']}' of dataset '{name}' is not in label_dict")
                frames = sorted(entry["frames"], key=_frame_number)
                count = len(frames) if self.frame_num is None else min(self.frame_num, len(frames))
                first = self.config.get("frame_sampling") == "first"
                paths += [frames[i if first else i * len(frames) // count] for i in range(count)]
                labels += [self.config["label_dict"][entry["label"]]] * count
                videos += [f"{name}/{group}/{video}"] * count
        if not paths:
            raise HostError(f"dataset '{dataset_name}' has no frames in its '{self.mode}' split ({file})")
        return paths, labels, videos

    def _stores(self) -> list[str]:
        """The LMDB folders of the datasets; FaceForensics++ and its subsets share one."""
        folders = []
        for name in self.dataset_list:
            plain = name.removesuffix("_c40")
            folder = ROOT / self.config["lmdb_dir"] / f"{FFPP[0] if plain in FFPP else plain}_lmdb"
            if not (folder / "data.mdb").is_file():
                raise HostError(f"dataset '{name}' has no LMDB: {folder} not found; build it, or lmdb: false")
            folders.append(str(folder.resolve()))
        return list(dict.fromkeys(folders))

    def _read(self, path: str) -> bytes:
        """The bytes of a file of the index: from an LMDB, or below ``rgb_dir``."""
        key = path.removeprefix("./datasets\\").encode()
        for store in self.stores:
            place = (os.getpid(), store)
            if place not in _environments:
                _environments[place] = lmdb.open(store, readonly=True, lock=False, readahead=False)
            with _environments[place].begin() as transaction:
                if (value := transaction.get(key)) is not None:
                    return value
        file = ROOT / self.config["rgb_dir"] / path.replace("\\", "/")
        if self.stores or not file.is_file():
            raise HostError(f"frame '{path}' is not in {', '.join(self.stores) or file.parent}")
        return file.read_bytes()

    def load_rgb(self, file_path: str) -> np.ndarray:
        """Read a crop: uint8 [resolution, resolution, 3], RGB."""
        image = cv2.imdecode(np.frombuffer(self._read(file_path), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise HostError(f"frame '{file_path}' is there but is no readable picture")
        size = (self.config["resolution"],) * 2
        return cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), size, interpolation=cv2.INTER_CUBIC)

    def load_mask(self, file_path: str) -> np.ndarray:
        """Read the forgery mask of a frame: float32 [resolution, resolution, 1] in 0..1."""
        raw = self._read(file_path.replace("frames", "masks"))
        mask = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_GRAYSCALE)
        return (cv2.resize(mask, (self.config["resolution"],) * 2) / 255).astype(np.float32)[..., None]

    def load_landmark(self, file_path: str, crop_size: int = 256) -> np.ndarray:
        """Read the 81 landmarks of a frame in pixels of the resized picture: float32 [81, 2]."""
        raw = self._read(file_path.replace("frames", "landmarks").replace(".png", ".npy"))
        # LMDB values are the bare numbers; files carry numpy's header.
        points = np.load(io.BytesIO(raw)) if raw[:6] == b"\x93NUMPY" else np.frombuffer(raw, np.uint32)
        return points.reshape(LANDMARKS, 2).astype(np.float32) * (self.config["resolution"] / crop_size)

    def to_tensor(self, img: np.ndarray) -> torch.Tensor:
        """Turn uint8 [H, W, 3] into float32 [3, H, W] in 0..1."""
        return torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1))).float().div_(255.0)

    def normalize(self, img: torch.Tensor) -> torch.Tensor:
        """Subtract ``mean`` and divide by ``std`` per channel of float [3, H, W]."""
        mean, std = (torch.tensor(self.config[key]).view(3, 1, 1) for key in ("mean", "std"))
        return (img - mean) / std

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, torch.Tensor | None, torch.Tensor | None]:
        path, label = self.data_dict["image"][index], self.data_dict["label"][index]
        image = self.load_rgb(path)
        if self._augmentation is not None:
            image = self._augmentation(image, int(torch.randint(2**31, ())))
        landmark = torch.from_numpy(self.load_landmark(path)) if self.config.get("with_landmark") else None
        mask = torch.from_numpy(self.load_mask(path)) if self.config.get("with_mask") else None
        return self.normalize(self.to_tensor(image)), label, landmark, mask

    @staticmethod
    def collate_fn(batch: Sequence[tuple[Any, ...]]) -> dict[str, torch.Tensor | None]:
        """Stack items: ``image`` [B, 3, H, W], ``label`` int64 [B], ``landmark`` and ``mask`` or None."""
        images, labels, landmarks, masks = zip(*batch, strict=True)
        return {
            "image": torch.stack(images),
            "label": torch.tensor(labels),
            "landmark": None if landmarks[0] is None else torch.stack(landmarks),
            "mask": None if masks[0] is None else torch.stack(masks),
        }

    def __len__(self) -> int:
        return len(self.data_dict["image"])


def _frame_number(path: str) -> tuple[int, int, str]:
    """Sorts frames by the number that their file is named by, else by name."""
    stem = Path(path.replace("\\", "/")).stem
    return (0, int(stem), path) if stem.isdigit() else (1, 0, path)
