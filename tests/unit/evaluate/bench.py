"""Datasets of a few tiny crops in a host's layout; a fake is a bright picture."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import toyhost

from effort_finetune.data.index import Video

LABELS = {"Toy_Real": 0, "Toy_Fake": 1}
SIZE = 32


class Bench(toyhost.Bench):
    """A host, and a folder that its datasets are written to."""

    @property
    def defaults(self) -> dict[str, Any]:
        return {
            "label_dict": LABELS,
            "head_width": 16,
            "workers": 0,
            "test_batchSize": 7,
            "bootstrap_samples": 50,
            "device": "cpu",
            "precision": "float32",
        }

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

        def picture(video: Video, _: int) -> np.ndarray:
            mean = 90 + 80 * LABELS[video.group] + 10 * int(video.name[-3:])
            return rng.normal(mean, 5, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)

        folder = "{number:03d}" if shared else "{split}_{number:03d}"
        counts = dict.fromkeys(splits, videos)
        listed = toyhost.list_videos(name, groups, counts, frames=frames, folder=folder)
        test = toyhost.frame_paths(listed, "test")
        absent = [test[number] for number in missing]
        toyhost.write_dataset(self.root, name, listed, picture, leave_out=absent)
        return test
