"""Small datasets in DeepfakeBench's layout, on the embedded host and, where there is one, a real one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import toyhost
from toyhost import EMBEDDED

from effort_finetune.data.index import Video
from effort_finetune.host import open_host

LABELS = {"UADFV_Real": 0, "UADFV_Fake": 1, "FF-real": 0, "FF-DF": 1, "FF-F2F": 2}


def picture(seed: int, size: int = 40) -> np.ndarray:
    """``uint8[size, size, 3]``, smooth and different for every seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


def video(
    group: str,
    name: str,
    split: str = "test",
    *,
    frames: int = 6,
    dataset: str = "UADFV",
    compression: str | None = None,
    separator: str = "\\",
) -> Video:
    parts = [dataset, group, *([compression] if compression else []), "frames", f"{split}_{name}"]
    paths = [separator.join([*parts, f"{number:03d}.png"]) for number in range(frames)]
    return Video(dataset, group, group, compression, name, split, tuple(paths))


def pair_of_groups(count: int = 2, **options: Any) -> list[Video]:
    """``count`` videos of each class in each split; video names repeat across splits and classes."""
    return [
        video(group, f"{number:04d}", split, **options)
        for split in ("train", "val", "test")
        for group in ("UADFV_Real", "UADFV_Fake")
        for number in range(count)
    ]


class Bench(toyhost.Bench):
    """A host and a folder of datasets."""

    @property
    def defaults(self) -> dict[str, Any]:
        return {
            "label_dict": LABELS,
            "frame_num": {"train": 4, "test": 4},
            "use_data_augmentation": False,
        }

    def write(self, videos: Iterable[Video], *, name: str = "UADFV", **options: Any) -> dict[str, bytes]:
        """Writes index and LMDB; returns the images by listed path."""
        return toyhost.write_dataset(
            self.root, name, list(videos), lambda video, number: picture(number), **options
        )

    def write_files(self, images: dict[str, bytes]) -> None:
        for path, data in images.items():
            file = self.root / "rgb" / path.replace("\\", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def hosts() -> list[Any]:
    real = os.environ.get("DEEPFAKEBENCH_ROOT")
    reason = "needs DEEPFAKEBENCH_ROOT, a checkout of a real DeepfakeBench"
    skip = [] if real else [pytest.mark.skip(reason=reason)]
    return [
        pytest.param(EMBEDDED, id="embedded"),
        pytest.param(Path(real or "."), id="real", marks=[pytest.mark.real_host, *skip]),
    ]


@pytest.fixture(params=hosts())
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    toyhost.lend_transforms(monkeypatch)
    return Bench(open_host(request.param), tmp_path)


@pytest.fixture
def embedded(tmp_path: Path) -> Bench:
    return Bench(open_host(EMBEDDED), tmp_path)
