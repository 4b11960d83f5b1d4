"""Hosts to test on, and a small dataset in their layout: JSON with backslash paths, LMDB of PNG bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from toyhost import IN_HOST, list_videos, noise
from toyhost import write_dataset as write_toys

from effort_finetune.data.index import Video

REAL = os.environ.get("DEEPFAKEBENCH_ROOT")
NEEDS_REAL = pytest.mark.skipif(not REAL, reason="DEEPFAKEBENCH_ROOT names no real host")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "logs", "pretrained", "weights", "*.dat", "*.pth", ".*")

#: What a command line needs to run the toy tower; the fork's own files name private folders.
SETTINGS = (
    *("--resolution", "224", "--head_width", "16", "--workers", "0", "--device", "cpu", "--lmdb", "true"),
    *("--precision", "float32", "--bootstrap_samples", "20"),
    *("--lmdb_dir", "./datasets/lmdb", "--dataset_json_folder", "./preprocessing/dataset_json"),
)

#: Name of the dataset -> its label groups, real first, as upstream's label_dict has them.
DATASETS = {"UADFV": ("UADFV_Real", "UADFV_Fake"), "Celeb-DF-v2": ("CelebDFv2_real", "CelebDFv2_fake")}
#: The landmark file that hosts open when their blending datasets are imported.
LANDMARKS = "preprocessing/dlib_tools/shape_predictor_81_face_landmarks.dat"
SPLITS = {"train": 4, "val": 3, "test": 3}
FRAMES = 4


def write_dataset(host: Path, name: str) -> None:
    """Writes ``name`` with 10 real and 10 fake videos of 4 frames below a host's root.

    Video names differ between the classes, for hosts merge videos of one name.
    """
    labels = {group: label for label, group in enumerate(DATASETS[name])}
    videos = list_videos(name, labels, SPLITS, frames=FRAMES, folder="{split}{number:02d}_{group}")
    draw = noise(labels, 64)

    def dimmed(video: Video, number: int) -> np.ndarray:
        """Every frame at a brightness of its own: scores of equal noise differ by less than float32 tells."""
        return (draw(video, number) * np.random.default_rng(number).uniform(0.3, 1)).astype(np.uint8)

    write_toys(host, name, videos, dimmed, layout=IN_HOST)
    v3 = host / "preprocessing" / "dataset_json_v3"
    v3.mkdir(exist_ok=True)
    shutil.copy(host / IN_HOST[0] / f"{name}.json", v3)


def copy_host(source: Path, target: Path) -> Path:
    for folder in ("training", "preprocessing"):
        shutil.copytree(source / folder, target / folder, ignore=NOT_COPIED, symlinks=False)
    return target
