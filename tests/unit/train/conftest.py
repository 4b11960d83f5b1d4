"""A small forgery dataset in DeepfakeBench's layout and a tiny CLIP tower, on the embedded host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toyhost
from toyhost import EMBEDDED

from effort_finetune.host import open_host

LABELS = {"Toy_Real": 0, "Toy_Fake": 1}
COMMAND = ("effort-finetune finetune", "--train_dataset", "Toy")


def write_dataset(root: Path, name: str, videos: dict[str, int], *, leave_out: int = 0) -> None:
    """Writes ``videos[split]`` videos of each class; the LMDB may lack the first frames."""
    listed = toyhost.list_videos(name, LABELS, videos)
    absent = toyhost.frame_paths(listed)[:leave_out]
    toyhost.write_dataset(root, name, listed, toyhost.noise(LABELS), leave_out=absent)


class Bench(toyhost.Bench):
    """A host, a folder of data and a folder to write in."""

    @property
    def defaults(self) -> dict[str, Any]:
        return {
            **self.training(LABELS),
            "frame_num": {"train": 3, "test": 3},
            "workers": 0,
            "precision": "float32",
            "device": "cpu",
            "output_dir": str(self.root / "out"),
            "save_to": str(self.root / "published" / "effort_{train_dataset}.pth"),
        }


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    write_dataset(root, "Toy", {"train": 4, "val": 2, "test": 2})
    write_dataset(root, "NoVal", {"train": 2, "test": 2})
    toyhost.save_clip(root / "clip")
    return root


@pytest.fixture
def bench(toy_root: Path, tmp_path: Path) -> Bench:
    for name in ("clip", "lmdb", "json"):
        (tmp_path / name).symlink_to(toy_root / name)
    return Bench(open_host(EMBEDDED), tmp_path)
