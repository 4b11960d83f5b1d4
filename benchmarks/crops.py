"""A dataset of picture-like crops in DeepfakeBench's layout, for the rows that read one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.data.index import Video
from effort_finetune.data.write_dataset import write_index, write_lmdb

SIZE = 256


def write_crops(root: Path, name: str, groups: Sequence[str], *, videos: int, frames: int) -> tuple[int, int]:
    """Writes the train split of a dataset: ``videos`` of each group; returns its frames and their bytes."""
    rng = np.random.default_rng(0)
    listed, images = [], {}
    for group in groups:
        for number in range(videos):
            folder = f"{name}\\{group}\\frames\\{number:03d}"
            paths = tuple(f"{folder}\\{i:03d}.png" for i in range(frames))
            listed.append(Video(name, group, group, None, f"{number:03d}", "train", paths))
            for path in paths:
                smooth = cv2.resize(
                    rng.uniform(40, 220, (8, 8, 3)), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC
                )
                image = (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)
                images[path] = cv2.imencode(".png", image)[1].tobytes()
    write_index(root, name, listed)
    write_lmdb(root / f"{name}_lmdb", sorted(images.items()))
    return len(images), sum(map(len, images.values()))
