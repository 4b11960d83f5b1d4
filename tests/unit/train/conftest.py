"""A small forgery dataset in DeepfakeBench's layout and a tiny CLIP tower, on the embedded host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from effort_finetune.config import Settings, resolve
from effort_finetune.data.build import write_index, write_lmdb
from effort_finetune.data.index import Video
from effort_finetune.host import Host, open_host

EMBEDDED = Path(__file__).resolve().parents[3] / "DeepfakeBench"
LABELS = {"Toy_Real": 0, "Toy_Fake": 1}
COMMAND = ("effort-finetune finetune", "--train_dataset", "Toy")


def png(seed: int, fake: bool) -> bytes:
    """Noise; a fake has a brighter left half."""
    image = np.random.default_rng(seed).integers(0, 200, (32, 32, 3), dtype=np.uint8)
    if fake:
        image[:, :16] += 55
    return cv2.imencode(".png", image)[1].tobytes()


def write_dataset(
    root: Path, name: str, videos: Mapping[str, int], *, frames: int = 3, leave_out: int = 0
) -> None:
    """Writes index and LMDB of ``videos[split]`` videos of each class; the first frames may be left out."""
    listed, images, number = [], {}, 0
    for split, count in videos.items():
        for fake, group in enumerate(LABELS):
            for index in range(count):
                vid = f"{split}{index:02d}"
                paths = tuple(f"{name}\\{group}\\frames\\{vid}\\{i:03d}.png" for i in range(frames))
                listed.append(Video(name, group, group, None, vid, split, paths))
                for path in paths:
                    images[path] = png(number, bool(fake))
                    number += 1
    write_index(root / "json", name, listed)
    write_lmdb(root / "lmdb" / f"{name}_lmdb", sorted(list(images.items())[leave_out:]))


@dataclass(frozen=True)
class Bench:
    """A host, a folder of data and a folder to write in."""

    host: Host
    root: Path

    def settings(self, **flags: Any) -> Settings:
        given = {
            "clip_path": str(self.root / "clip"),
            "lmdb_dir": str(self.root / "lmdb"),
            "dataset_json_folder": str(self.root / "json"),
            "label_dict": LABELS,
            "resolution": 32,
            "head_width": 16,
            "train_dataset": ["Toy"],
            "frame_num": {"train": 3, "test": 3},
            "train_batchSize": 4,
            "workers": 0,
            "nEpochs": 2,
            "precision": "float32",
            "device": "cpu",
            "optimizer.lr": 1e-3,
            "bootstrap_samples": 20,
            "output_dir": str(self.root / "out"),
            "save_to": str(self.root / "published" / "effort_{train_dataset}.pth"),
            **flags,
        }
        return resolve(flags=given, yaml_path=None, host_defaults={})


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    write_dataset(root, "Toy", {"train": 4, "val": 2, "test": 2})
    write_dataset(root, "NoVal", {"train": 2, "test": 2})
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        hidden_act="quick_gelu",
    )
    CLIPVisionModel(config).save_pretrained(root / "clip")
    return root


@pytest.fixture
def bench(toy_root: Path, tmp_path: Path) -> Bench:
    for name in ("clip", "lmdb", "json"):
        (tmp_path / name).symlink_to(toy_root / name)
    return Bench(open_host(EMBEDDED), tmp_path)
