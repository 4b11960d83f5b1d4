"""A clone of the repository with small datasets, in which every documented command can run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from effort_finetune.data.build import write_index, write_lmdb
from effort_finetune.data.index import Video

ROOT = Path(__file__).resolve().parents[2]
# Dataset -> (label groups: real, fake; compression level in the index)
DATASETS = {
    "UADFV": ("UADFV_Real", "UADFV_Fake", None),
    "Celeb-DF-v2": ("CelebDFv2_real", "CelebDFv2_fake", None),
    "FaceForensics++": ("FF-real", "FF-DF", "c23"),
}


def _png(rng: np.random.Generator, fake: bool) -> bytes:
    image = rng.integers(0, 200, (64, 64, 3), dtype=np.uint8)
    if fake:
        image[:, :32] += 55
    return cv2.imencode(".png", image)[1].tobytes()


def write_datasets(host: Path, *, videos: int = 3, frames: int = 2) -> None:
    """Writes ``DATASETS`` into a host, ``videos`` of each class in each split."""
    rng = np.random.default_rng(0)
    for name, (real, fake, level) in DATASETS.items():
        listed, images = [], {}
        for label in (real, fake):
            for number, split in enumerate(s for s in ("train", "val", "test") for _ in range(videos)):
                paths = tuple(f"{name}\\{label}\\frames\\{number:04d}\\{t:03d}.png" for t in range(frames))
                listed.append(Video(name, label, label, level, f"{number:04d}", split, paths))
                images |= {path: _png(rng, label == fake) for path in paths}
        write_index(host / "preprocessing" / "dataset_json", name, listed)
        write_lmdb(host / "datasets" / "lmdb" / f"{name}_lmdb", sorted(images.items()))


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as a fresh clone has it (tracked files, as they are now), with datasets and links."""
    folder = tmp_path_factory.mktemp("clone") / "effort-finetune"
    folder.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to(os.readlink(ROOT / name))
        elif (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
    write_datasets(folder / "DeepfakeBench")
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of the commands: this interpreter first, no host chosen from outside."""
    chosen = {k: v for k, v in os.environ.items() if k != "DEEPFAKEBENCH_ROOT"}
    chosen["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{chosen['PATH']}"
    return chosen
