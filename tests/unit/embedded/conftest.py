"""A small bench on disk, in DeepfakeBench's own layout: crops in LMDB or files, and a JSON index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
import yaml

SOURCE = Path(__file__).resolve().parents[3] / "DeepfakeBench" / "training"
OVERLAY = ("finetune.py", "evaluate_finetune.py", "effort_finetune.yaml", "pretrained", "logs", "__pycache__")
HOST_MODULES = {
    "config",
    "dataset",
    "detectors",
    "logger",
    "loss",
    "metrics",
    "networks",
    "trainer",
}


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the host without the plugin's overlay: these tests are about the host alone."""
    folder = tmp_path_factory.mktemp("DeepfakeBench") / "training"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns(*OVERLAY))
    return folder


@pytest.fixture(autouse=True)
def host_modules(training: Path) -> Iterator[None]:
    """Puts the host's folder first on the path, and takes its modules away again for the other tests."""
    hidden = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in HOST_MODULES
    }
    path = list(sys.path)
    sys.path.insert(0, str(training))
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] in HOST_MODULES]:
        del sys.modules[name]
    sys.modules.update(hidden)


@dataclass
class Bench:
    """Folders of a generated bench, and the settings that point at them."""

    root: Path

    @property
    def folders(self) -> dict[str, str]:
        return {
            "dataset_json_folder": str(self.root / "dataset_json"),
            "lmdb_dir": str(self.root / "lmdb"),
            "rgb_dir": str(self.root / "rgb"),
            "log_dir": str(self.root / "logs"),
        }

    @property
    def flags(self) -> list[str]:
        return [text for key, value in self.folders.items() for text in (f"--{key}", value)]

    def config(self, **changes: Any) -> dict[str, Any]:
        labels = {f"Demo{x}_{kind}": int(kind == "Fake") for x in "ABC" for kind in ("Real", "Fake")}
        config = {
            **self.folders,
            "lmdb": True,
            "label_dict": {**labels, "FF-real": 0, "FF-DF": 2},
            "compression": "c23",
            "train_dataset": ["DemoA"],
            "test_dataset": "DemoA",
            "frame_num": {"train": 2, "test": 3},
            "resolution": 32,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        }
        return {**config, **changes}

    def add(
        self,
        name: str,
        *,
        groups: dict[str, str] | None = None,
        splits: dict[str, int] | None = None,
        frames: int = 3,
        size: int = 32,
        levels: tuple[str, ...] = (),
        lmdb_name: str | None = None,
        prefix: str = "",
        files: bool = False,
    ) -> None:
        """Write a dataset.

        Args:
            name: Its name.
            groups: Label group to label name; ``<name>_Real`` and ``<name>_Fake`` when None.
            splits: Videos of each group by split.
            frames: Frames of each video.
            size: Side of a crop in pixels.
            levels: Compression levels, the index's extra level; none when empty.
            lmdb_name: Stem of the LMDB folder, the name when None.
            prefix: Put before each path in the index, as in ``./datasets\\``.
            files: Write plain files instead of an LMDB.
        """
        groups = groups or {f"{name}_Real": f"{name}_Real", f"{name}_Fake": f"{name}_Fake"}
        splits = splits or {"train": 3, "val": 2, "test": 2}
        index: dict[str, Any] = {}
        crops: dict[str, bytes] = {}
        for group, label in groups.items():
            for split, videos in splits.items():
                for level in levels or ("",):
                    entry: dict[str, Any] = {}
                    for number in range(videos):
                        video = f"{split}{number:02d}"
                        folder = [part for part in (name, group, level, "frames", video) if part]
                        keys = ["\\".join([*folder, f"{i}.png"]) for i in range(frames)]
                        fake = "real" not in label.lower()
                        crops |= {key: crop(key, fake, size) for key in keys}
                        # Unsorted on purpose: "10" comes before "2" as text.
                        entry[video] = {"label": label, "frames": sorted(prefix + key for key in keys)}
                    place = index.setdefault(group, {}).setdefault(split, {})
                    place.update({level: entry} if level else entry)
        self._index_path(name).parent.mkdir(parents=True, exist_ok=True)
        self.write_index(name, index)
        write_files(self.root / "rgb", crops) if files else self.add_lmdb(lmdb_name or name, crops)

    def index(self, name: str) -> dict[str, Any]:
        return json.loads(self._index_path(name).read_text())[name]

    def write_index(self, name: str, groups: Any) -> None:
        self._index_path(name).write_text(json.dumps({name: groups}))

    def _index_path(self, name: str) -> Path:
        return self.root / "dataset_json" / f"{name}.json"

    def add_lmdb(self, stem: str, values: dict[str, bytes]) -> None:
        folder = self.root / "lmdb" / f"{stem}_lmdb"
        folder.mkdir(parents=True, exist_ok=True)
        with (
            lmdb.open(str(folder), map_size=2**26) as environment,
            environment.begin(write=True) as transaction,
        ):
            for key, value in values.items():
                transaction.put(key.encode(), value)

    def delete(self, stem: str, key: str) -> None:
        folder = self.root / "lmdb" / f"{stem}_lmdb"
        with (
            lmdb.open(str(folder), map_size=2**26) as environment,
            environment.begin(write=True) as transaction,
        ):
            assert transaction.delete(key.encode())


def write_files(root: Path, crops: dict[str, bytes]) -> None:
    for key, data in crops.items():
        path = root.joinpath(*key.split("\\"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def crop(key: str, fake: bool, size: int) -> bytes:
    """PNG of a noisy grey square whose noise depends on the key; a fake one is tinted red."""
    rng = np.random.default_rng(list(key.encode()))
    image = rng.integers(64, 160, (size, size, 3), dtype=np.uint8)
    if fake:
        image[..., 2] += 80
    ok, data = cv2.imencode(".png", image)
    assert ok
    return data.tobytes()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench")


@pytest.fixture
def detector_yaml(training: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes MesoNet's YAML with changes, small enough for a test."""

    def write(**changes: Any) -> Path:
        content = yaml.safe_load((training / "config/detector/meso4.yaml").read_text())
        content |= {
            "resolution": 32,
            "train_batchSize": 8,
            "test_batchSize": 8,
            "workers": 0,
            "frame_num": {"train": 4, "test": 4},
            "nEpochs": 1,
            "use_data_augmentation": False,
            **changes,
        }
        path = tmp_path / "detector.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def configured(training: Path, bench: Bench) -> Iterator[None]:
    """The bench's own two files name the generated data, as a user's would."""
    files = [training / f"config/{mode}_config.yaml" for mode in ("train", "test")]
    before = [file.read_text() for file in files]
    for file, text in zip(files, before, strict=True):
        file.write_text(yaml.safe_dump({**yaml.safe_load(text), **bench.folders}))
    yield
    for file, text in zip(files, before, strict=True):
        file.write_text(text)


@pytest.fixture
def run_script(training: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs train.py or test.py in a folder that is not the bench's."""

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, str(training / script), *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run
