"""Small datasets in DeepfakeBench's layout, on the embedded host and, where there is one, a real one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from effort_finetune.config import Settings, resolve
from effort_finetune.data.build import write_index, write_lmdb
from effort_finetune.data.index import Video
from effort_finetune.host import Host, open_host

EMBEDDED = Path(__file__).resolve().parents[3] / "DeepfakeBench"
LABELS = {"UADFV_Real": 0, "UADFV_Fake": 1, "FF-real": 0, "FF-DF": 1, "FF-F2F": 2}


def picture(seed: int, size: int = 40) -> np.ndarray:
    """``uint8[size, size, 3]``, smooth and different for every seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


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


@dataclass(frozen=True)
class Bench:
    """A host and a folder of datasets."""

    host: Host
    root: Path

    def settings(self, **flags: Any) -> Settings:
        flags = {
            "lmdb_dir": str(self.root / "lmdb"),
            "rgb_dir": str(self.root / "rgb"),
            "dataset_json_folder": str(self.root / "json"),
            "label_dict": LABELS,
            "resolution": 32,
            "frame_num": {"train": 4, "test": 4},
            "use_data_augmentation": False,
            **flags,
        }
        return resolve(flags=flags, yaml_path=None, host_defaults={})

    def write(
        self,
        videos: Iterable[Video],
        *,
        name: str = "UADFV",
        lmdb_name: str | None = None,
        leave_out: Iterable[str] = (),
        spoil: Iterable[str] = (),
        key: Callable[[str], str] = lambda path: path,
    ) -> dict[str, bytes]:
        """Writes index and LMDB; returns the images by listed path."""
        videos, gone, bad = list(videos), set(leave_out), set(spoil)
        paths = sorted({path for item in videos for path in item.frames})
        images = {path: png(picture(number)) for number, path in enumerate(paths)}
        stored = {p: b"not an image" if p in bad else data for p, data in images.items() if p not in gone}
        write_index(self.root / "json", name, videos)
        write_lmdb(
            self.root / "lmdb" / f"{lmdb_name or name}_lmdb",
            sorted((key(path), data) for path, data in stored.items()),
        )
        return images

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
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(open_host(request.param), tmp_path)


@pytest.fixture
def embedded(tmp_path: Path) -> Bench:
    return Bench(open_host(EMBEDDED), tmp_path)
