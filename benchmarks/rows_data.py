"""Rows about loading: our loader against the host's own dataset class in torch's default loader."""

from __future__ import annotations

import os
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import albumentations
from crops import SIZE, write_crops
from timing import interleaved, row, skipped
from torch.utils.data import DataLoader

from effort_finetune.config import Settings, resolve
from effort_finetune.core import resources
from effort_finetune.data.frames import open_frames
from effort_finetune.data.loader import make_loader
from effort_finetune.host import Host, open_host

Row = dict[str, Any]

DATASET, GROUPS = "UADFV", ("UADFV_Real", "UADFV_Fake")
FRAMES_PER_VIDEO = 16


def loading(options: Namespace) -> Iterator[Row]:
    """Epochs of the training split; the host is the one of ``$DEEPFAKEBENCH_ROOT``, or the embedded one."""
    host = open_host(Path(os.environ.get("DEEPFAKEBENCH_ROOT") or resources.root() / "DeepfakeBench"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        count, size = write_crops(
            root / "ours", DATASET, GROUPS, videos=options.videos, frames=FRAMES_PER_VIDEO
        )
        # Two copies: lmdb 2 refuses a second open of one path in a process.
        shutil.copytree(root / "ours", root / "host")
        for augmented in (False, True):
            for workers in (0, options.threads):
                what = (
                    f"loading, augmentation {'on' if augmented else 'off'}, {workers} workers, "
                    f"times the frames a second of {host.name}"
                )
                settings = [_settings(root, lmdb, host, augmented) for lmdb in ("host", "ours")]
                theirs = _host_loader(host, settings[0], options.batch, workers)
                if isinstance(theirs, str):
                    yield skipped(what, theirs)
                    continue
                frames = open_frames(host, settings[1], split="train", names=[DATASET])
                ours = make_loader(frames, batch_size=options.batch, workers=workers, shuffle=True)
                measured = interleaved(
                    {"host": _epoch(theirs, count), "ours": _epoch(ours, count)},
                    repeats=options.repeats,
                    clock="wall" if workers else options.clock,
                )
                for times in measured.values():
                    times["frames_per_s"] = count / times["median_s"]
                ratio = measured["host"]["median_s"] / measured["ours"]["median_s"]
                yield row(
                    what,
                    ratio,
                    target=">= 1",
                    met=ratio >= 1,
                    measured={**measured, "host_commit": host.commit},
                    setup=f"{count} crops of {SIZE}x{SIZE}, {size / count / 1e3:.0f} kB of PNG each, made "
                    f"{settings[0].resolution}x{settings[0].resolution}, batches of {options.batch}, page "
                    "cache warm; the host starts its workers anew every epoch, ours stay; albumentations "
                    f"{albumentations.__version__}, colour step {settings[0].data_aug.brightness_prob:g}",
                )


def _settings(root: Path, lmdb: str, host: Host, augmented: bool) -> Settings:
    flags: dict[str, Any] = {
        # Upstream's colour step holds a PCA that costs more than decoding; the embedded host's does not, so
        # the two are compared without that step.
        "data_aug.brightness_prob": 0.0 if host.embedded else 0.5,
        "label_dict": {group: label for label, group in enumerate(GROUPS)},
        "lmdb": True,
        "lmdb_dir": str(root / lmdb),
        "dataset_json_folder": str(root / lmdb),
        "frame_num": {"train": FRAMES_PER_VIDEO, "test": FRAMES_PER_VIDEO},
        "use_data_augmentation": augmented,
    }
    return resolve(flags=flags, yaml_path=None, host_defaults={})


def _host_loader(host: Host, settings: Settings, batch: int, workers: int) -> DataLoader[Any] | str:
    """The loader of the host's ``train.py`` over its own class, or the reason why there is none."""
    modern = int(albumentations.__version__.split(".")[0]) >= 2
    if not host.embedded and modern and settings.use_data_augmentation:
        return (
            f"albumentations {albumentations.__version__} turns this host's JPEG step off: not the same work"
        )
    dataset_class: Any = host.dataset_class
    if not host.embedded and not settings.use_data_augmentation:

        class WithoutPipeline(dataset_class):  # built even where it is not used, with arguments of 1.x
            def init_data_aug_method(self) -> None:
                return None

        dataset_class = WithoutPipeline
    config = settings.to_dict() | {"train_dataset": [DATASET], "with_mask": False, "with_landmark": False}
    try:
        dataset = dataset_class(config, "train")
    except Exception as error:  # a real host raises what it likes; ours has no excuse
        if host.embedded:
            raise
        return f"the host's dataset cannot be constructed: {type(error).__name__}: {error}"
    return DataLoader(
        dataset, batch_size=batch, shuffle=True, num_workers=workers, collate_fn=dataset.collate_fn
    )


def _epoch(loader: DataLoader[Any], expected: int) -> Callable[[], None]:
    def run() -> None:
        read = sum(len(batch["image"]) for batch in loader)
        if read != expected:
            raise RuntimeError(f"read {read} frames, expected {expected}: not the same work")

    return run
