"""Hosts to test on, and a small dataset in their layout: JSON with backslash paths, LMDB of PNG bytes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

REAL = os.environ.get("DEEPFAKEBENCH_ROOT")
NEEDS_REAL = pytest.mark.skipif(not REAL, reason="DEEPFAKEBENCH_ROOT names no real host")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "logs", "pretrained", "weights", "*.dat", "*.pth", ".*")

#: What a command line needs to run the toy tower; the fork's own files name private folders.
SETTINGS = (
    *("--resolution", "224", "--head_width", "16", "--workers", "0", "--device", "cpu", "--lmdb", "true"),
    *("--precision", "float32", "--bootstrap_samples", "0"),
    *("--lmdb_dir", "./datasets/lmdb", "--dataset_json_folder", "./preprocessing/dataset_json"),
)

#: Name of the dataset -> its label groups, real first, as upstream's label_dict has them.
DATASETS = {"UADFV": ("UADFV_Real", "UADFV_Fake"), "Celeb-DF-v2": ("CelebDFv2_real", "CelebDFv2_fake")}
SPLITS = {"train": 4, "val": 3, "test": 3}
FRAMES = 4


def write_dataset(host: Path, name: str, *, seed: int = 0, size: int = 64) -> None:
    """Writes ``name`` with 10 real and 10 fake videos of 4 frames below a host's root.

    Fakes carry a checkerboard that a detector can learn; video names differ between the classes.
    """
    generator = np.random.default_rng(seed)
    index: dict[str, dict] = {name: {}}
    crops: dict[str, bytes] = {}
    for label, group in enumerate(DATASETS[name]):
        index[name][group] = {}
        number = 0
        for split, videos in SPLITS.items():
            index[name][group][split] = {}
            for _ in range(videos):
                video = f"{number:04d}{'_fake' if label else ''}"
                frames = [
                    f"{name}\\{'fake' if label else 'real'}\\frames\\{video}\\{i:03d}.png"
                    for i in range(FRAMES)
                ]
                index[name][group][split][video] = {"label": group, "frames": frames}
                colour = generator.integers(60, 190, 3)
                for frame in frames:
                    crops[frame] = _png(generator, colour, size, fake=bool(label))
                number += 1
    for folder in ("dataset_json", "dataset_json_v3"):
        path = host / "preprocessing" / folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(index))
    store = host / "datasets" / "lmdb" / f"{name}_lmdb"
    store.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(store), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, value in crops.items():
            transaction.put(key.encode(), value)


def _png(generator: np.random.Generator, colour: np.ndarray, size: int, *, fake: bool) -> bytes:
    image = np.full((size, size, 3), colour, dtype=np.float64) + generator.normal(0, 8, (size, size, 3))
    if fake:
        board = np.indices((size, size)).sum(axis=0) // 4 % 2
        image += 40 * (board[:, :, None] - 0.5)
    return cv2.imencode(".png", np.clip(image, 0, 255).astype(np.uint8))[1].tobytes()


def copy_host(source: Path, target: Path) -> Path:
    for folder in ("training", "preprocessing"):
        shutil.copytree(source / folder, target / folder, ignore=NOT_COPIED, symlinks=False)
    return target
