"""Datasets of a few tiny crops in a host's layout; a fake is a bright picture."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from effort_finetune.config import Settings, resolve
from effort_finetune.data.build import write_index, write_lmdb
from effort_finetune.data.index import Video
from effort_finetune.host import Host

LABELS = {"Toy_Real": 0, "Toy_Fake": 1}
SIZE = 32


@dataclass(frozen=True)
class Bench:
    """A host, and a folder that its datasets are written to."""

    host: Host
    root: Path

    def settings(self, **flags: Any) -> Settings:
        defaults = {
            "lmdb_dir": str(self.root / "lmdb"),
            "dataset_json_folder": str(self.root / "json"),
            "label_dict": LABELS,
            "resolution": SIZE,
            "head_width": 16,
            "workers": 0,
            "test_batchSize": 7,
            "bootstrap_samples": 50,
            "device": "cpu",
            "precision": "float32",
        }
        return resolve(flags={**defaults, **flags}, yaml_path=None, host_defaults={})

    def write(
        self,
        name: str,
        *,
        videos: int = 4,
        frames: int = 3,
        missing: Collection[int] = (),
        groups: Collection[str] = tuple(LABELS),
        splits: Collection[str] = ("train", "val", "test"),
        shared: bool = False,
    ) -> list[str]:
        """Writes index and LMDB; names of videos repeat over the groups.

        Args:
            name: Dataset.
            videos: Videos of each group in each split.
            frames: Frames of each video.
            missing: Numbers of the test frames the LMDB lacks.
            groups: Label groups that have videos.
            splits: Splits that have videos.
            shared: Whether all splits list the same videos, as UADFV's do.

        Returns:
            The paths of the test frames, in the index's order.
        """
        rng = np.random.default_rng(len(name))
        listed: list[Video] = []
        stored: dict[str, bytes] = {}
        for split in splits:
            for group in groups:
                for number in range(videos):
                    folder = f"{number:03d}" if shared else f"{split}_{number:03d}"
                    paths = tuple(
                        "\\".join([name, group, "frames", folder, f"{f:03d}.png"]) for f in range(frames)
                    )
                    listed.append(Video(name, group, group, None, folder, split, paths))
                    mean = 90 + 80 * LABELS[group] + 10 * number
                    for path in paths:
                        picture = rng.normal(mean, 5, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
                        stored[path] = cv2.imencode(".png", picture)[1].tobytes()
        test = [path for video in listed if video.split == "test" for path in video.frames]
        for number in missing:
            del stored[test[number]]
        write_index(self.root / "json", name, listed)
        write_lmdb(self.root / "lmdb" / f"{name}_lmdb", sorted(stored.items()))
        return test
