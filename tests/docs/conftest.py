"""A clone of the repository with small datasets, in which every documented command can run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from toyhost import IN_HOST, list_videos, noise, write_dataset

ROOT = Path(__file__).resolve().parents[2]
# Dataset -> (label groups: real, fake; compression level in the index)
DATASETS = {
    "UADFV": ("UADFV_Real", "UADFV_Fake", None),
    "Celeb-DF-v2": ("CelebDFv2_real", "CelebDFv2_fake", None),
    "FaceForensics++": ("FF-real", "FF-DF", "c23"),
}


def write_datasets(host: Path) -> None:
    """Writes ``DATASETS`` into a host, three videos of each class in each split."""
    for name, (real, fake, level) in DATASETS.items():
        splits = {"train": 3, "val": 3, "test": 3}
        videos = list_videos(name, (real, fake), splits, frames=2, compression=level)
        write_dataset(host, name, videos, noise({real: 0, fake: 1}, 64), layout=IN_HOST)


def write_videos(folder: Path) -> None:
    """Six videos of four frames in each class: what a user brings."""
    for label in ("real", "fake"):
        (folder / label).mkdir(parents=True)
        for number in range(6):
            path = str(folder / label / f"{number:03d}.avi")
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 64))
            for shade in (0, 60, 120, 180):
                writer.write(np.full((64, 64, 3), shade + number, np.uint8))
            writer.release()


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as a fresh clone has it (tracked files, as they are now), with datasets."""
    folder = tmp_path_factory.mktemp("clone") / "effort-finetune"
    folder.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
    write_datasets(folder / "DeepfakeBench")
    write_videos(folder / "my_videos")
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of the commands: this interpreter first, no host chosen from outside."""
    chosen = {k: v for k, v in os.environ.items() if k != "DEEPFAKEBENCH_ROOT"}
    chosen["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{chosen['PATH']}"
    return chosen


@pytest.fixture(scope="session")
def warm_environment(environment, warm) -> dict[str, str]:
    """The same, in which commands start warm where the system can do that."""
    return {**environment, "PATH": f"{warm}{os.pathsep}{environment['PATH']}"}
