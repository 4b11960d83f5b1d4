"""The tests' writer of small datasets in DeepfakeBench's on-disk layout, and what reads them.

A JSON index with backslash paths, an LMDB of PNG bytes, a tiny CLIP tower. The tests of the embedded host
have a writer of their own, which does not go through the plugin.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from effort_finetune.config import Settings, resolve
from effort_finetune.data.index import Video
from effort_finetune.data.write_dataset import write_index, write_lmdb
from effort_finetune.host import Host

EMBEDDED = Path(__file__).resolve().parents[1] / "DeepfakeBench"
#: Where indexes and LMDBs lie below a folder of data, and below a host's root.
PLAIN, IN_HOST = ("json", "lmdb"), ("preprocessing/dataset_json", "datasets/lmdb")

#: ``uint8[H, W, 3]`` of a frame, from its video and its number among all that are written.
Picture = Callable[[Video, int], np.ndarray]


class _Transforms(types.ModuleType):
    """``ToTensor`` and ``Normalize`` of torchvision, for hosts where torchvision is absent."""

    class ToTensor:
        def __call__(self, image: Any) -> torch.Tensor:
            return (
                torch.from_numpy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))).float().div(255)
            )

    class Normalize:
        def __init__(self, mean: Any, std: Any) -> None:
            self.mean, self.std = (torch.tensor(value).view(-1, 1, 1) for value in (mean, std))

        def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
            return (tensor - self.mean) / self.std


def lend_transforms(monkeypatch: Any) -> None:
    """Real hosts import torchvision for these two lines alone; its wheel has to match torch's."""
    if importlib.util.find_spec("torchvision") is None:
        transforms = _Transforms("torchvision.transforms")
        package = types.ModuleType("torchvision")
        package.transforms = transforms  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchvision", package)
        monkeypatch.setitem(sys.modules, "torchvision.transforms", transforms)


def noise(labels: Mapping[str, int], size: int = 32) -> Picture:
    """Noise of its own for every frame; a fake has a brighter left half."""

    def draw(video: Video, number: int) -> np.ndarray:
        image = np.random.default_rng(number).integers(0, 200, (size, size, 3), dtype=np.uint8)
        image[:, : size // 2] += np.uint8(55 * labels[video.label_name])
        return image

    return draw


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def list_videos(
    name: str,
    groups: Iterable[str],
    splits: Mapping[str, int],
    *,
    frames: int = 3,
    folder: str = "{split}{number:02d}",
    compression: str | None = None,
) -> list[Video]:
    """``splits[split]`` videos of each label group; video names repeat over the groups."""
    listed = []
    for split, count in splits.items():
        for group in groups:
            for number in range(count):
                video = folder.format(split=split, number=number, group=group)
                paths = tuple(f"{name}\\{group}\\frames\\{video}\\{i:03d}.png" for i in range(frames))
                listed.append(Video(name, group, group, compression, video, split, paths))
    return listed


def frame_paths(videos: Iterable[Video], split: str | None = None) -> list[str]:
    """The videos' frames as listed, each once."""
    return list(dict.fromkeys(path for v in videos if split in (None, v.split) for path in v.frames))


def write_dataset(
    root: Path,
    name: str,
    videos: Collection[Video],
    picture: Picture,
    *,
    layout: tuple[str, str] = PLAIN,
    lmdb_name: str | None = None,
    leave_out: Collection[str] = (),
    spoil: Collection[str] = (),
    key: Callable[[str], str] = lambda path: path,
) -> dict[str, bytes]:
    """Writes index and LMDB; returns the images by listed path, also those left out of the LMDB."""
    owners = {path: video for video in videos for path in video.frames}
    images = {path: png(picture(owners[path], number)) for number, path in enumerate(frame_paths(videos))}
    stored = {
        key(path): b"not an image" if path in spoil else data
        for path, data in images.items()
        if path not in leave_out
    }
    write_index(root / layout[0], name, videos)
    write_lmdb(root / layout[1] / f"{lmdb_name or name}_lmdb", sorted(stored.items()))
    return images


def link_host(root: Path) -> Path:
    """The embedded host's code at ``root``, with no data, weights and logs but its own."""
    (root / "training").mkdir(parents=True)
    for entry in (EMBEDDED / "training").iterdir():
        if entry.name not in ("logs", "pretrained", "__pycache__"):
            (root / "training" / entry.name).symlink_to(entry)
    return root


def save_clip(folder: Path, **changes: Any) -> None:
    """Saves a CLIP vision tower of two layers with random weights."""
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**{**shape, **changes})).save_pretrained(folder)


@dataclass(frozen=True)
class Bench:
    """A host and a folder of datasets; a room's own bench adds the settings that its tests share."""

    host: Host
    root: Path

    @property
    def defaults(self) -> dict[str, Any]:
        """What the room's tests set."""
        return {}

    def training(self, labels: Mapping[str, int]) -> dict[str, Any]:
        """A short training of the tiny tower on the dataset ``Toy``."""
        return {
            "clip_path": str(self.root / "clip"),
            "label_dict": dict(labels),
            "head_width": 16,
            "train_dataset": ["Toy"],
            "train_batchSize": 4,
            "nEpochs": 2,
            "optimizer.lr": 1e-3,
            "bootstrap_samples": 20,
        }

    def settings(self, **flags: Any) -> Settings:
        """The folder's settings with the defaults and the given changes."""
        folders = {
            "lmdb_dir": str(self.root / "lmdb"),
            "rgb_dir": str(self.root / "rgb"),
            "dataset_json_folder": str(self.root / "json"),
            "resolution": 32,
        }
        return resolve(flags={**folders, **self.defaults, **flags}, yaml_path=None, host_defaults={})
