"""Row about head-only training: epochs on features computed once against epochs through the tower."""

from __future__ import annotations

import itertools
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from crops import write_crops
from timing import interleaved, row
from torch.utils.data import DataLoader
from towers import dense

from effort_finetune.config import resolve
from effort_finetune.core import resources
from effort_finetune.core.precision import resolve_precision
from effort_finetune.data.frames import open_frames
from effort_finetune.host import open_host
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.data import RunData, shuffled_loader
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.features import feature_run
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.optim import build_optimizer

NAME, GROUPS, FRAMES = "Bench", ("Bench_Real", "Bench_Fake"), 8


def head_only(options: Namespace) -> Iterator[dict[str, Any]]:
    """Training epochs of the head at the default precision, over crops in an LMDB, no augmentation."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_crops(root, NAME, GROUPS, videos=2, frames=FRAMES)
        flags = {
            **{"tune_mode": "head", "use_data_augmentation": False, "train_dataset": [NAME], "workers": 0},
            **{"lmdb_dir": str(root), "dataset_json_folder": str(root), "train_batchSize": options.batch},
            **{"frame_num": {"train": FRAMES, "test": FRAMES}, "test_batchSize": options.batch},
            "label_dict": {group: label for label, group in enumerate(GROUPS)},
        }
        settings = resolve(flags=flags, yaml_path=None, host_defaults={})
        host = open_host(resources.root() / "DeepfakeBench")
        frames = open_frames(host, settings, split="train", names=[NAME])
        loader = shuffled_loader(frames, settings)
        model = EffortFinetuneDetector(settings, tower=dense(options.layers))
        precision = resolve_precision(settings.precision, torch.device("cpu"))
        run = feature_run(model, RunData(frames, loader, {}, {}), settings, [])
        if run is None:
            raise RuntimeError("features are not kept: not what this row measures")
        started = time.perf_counter()
        run.compute(settings, precision, lambda: False)
        computed = time.perf_counter() - started

        def epochs(trained: torch.nn.Module, batches: DataLoader[Any]) -> Callable[[], object]:
            optimizer = build_optimizer(model, settings)
            loop = TrainingLoop(trained, optimizer, precision, torch.device("cpu"))
            numbers = itertools.count()
            return lambda: loop.run_epoch(batches, EpochProgress(next(numbers)))

        measured = interleaved(
            {"through_the_tower": epochs(model, loader), "on_features": epochs(run.model, run.loader)},
            repeats=options.repeats,
            clock=options.clock,
        )
    ratio = measured["through_the_tower"]["median_s"] / measured["on_features"]["median_s"]
    yield row(
        "head-only epoch after the first, times faster than one through the tower",
        ratio,
        target=">= 50",
        met=ratio >= 50,
        measured={**measured, "computing_the_features_s": computed},
        setup=f"{options.layers} layers of ViT-L/14, {len(frames)} crops in an LMDB, batch {options.batch}, "
        f"{precision.name}, {options.threads} threads",
    )
