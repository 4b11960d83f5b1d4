"""Rows about a frozen part of the tower: epochs on what it gives, computed once, against epochs through."""

from __future__ import annotations

import copy
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
    found = _epochs(options, options.layers, {"tune_mode": "head"}, against={})
    ratio = found["through_the_tower"]["median_s"] / found["on_features"]["median_s"]
    yield row(
        "head-only epoch after the first, times faster than one through the tower",
        ratio,
        target=">= 50",
        met=ratio >= 50,
        measured=found,
        setup=_setup(options, options.layers),
    )


def frozen_prefix(options: Namespace) -> Iterator[dict[str, Any]]:
    """Epochs of the residuals in the later half of the blocks against epochs of all residuals."""
    layers = max(options.layers, 2)
    first = layers // 2
    found = _epochs(options, layers, {"layer_range": [first, layers - 1]}, against={"layer_range": None})
    ratio = found["on_features"]["median_s"] / found["through_the_tower"]["median_s"]
    share = (layers - first) / layers
    yield row(
        f"epoch with layer_range [{first}, {layers - 1}] over one of all {layers} blocks",
        ratio,
        target=f"<= {share + 0.1:.2f}, the share of the blocks and 10 %",
        met=ratio <= share + 0.1,
        measured=found,
        setup=_setup(options, layers),
    )


def _epochs(options: Namespace, layers: int, kept: dict[str, Any], against: dict[str, Any]) -> dict[str, Any]:
    """Times epochs on what the frozen part gives, and through the tower under the settings ``against``."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_crops(root, NAME, GROUPS, videos=2, frames=FRAMES)
        flags = {
            **{"use_data_augmentation": False, "train_dataset": [NAME], "workers": 0, **kept},
            **{"lmdb_dir": str(root), "dataset_json_folder": str(root), "train_batchSize": options.batch},
            **{"frame_num": {"train": FRAMES, "test": FRAMES}, "test_batchSize": options.batch},
            "label_dict": {group: label for label, group in enumerate(GROUPS)},
        }
        settings = resolve(flags=flags, yaml_path=None, host_defaults={})
        host = open_host(resources.root() / "DeepfakeBench")
        frames = open_frames(host, settings, split="train", names=[NAME])
        loader = shuffled_loader(frames, settings)
        tower = dense(layers)
        model = EffortFinetuneDetector(settings, tower=copy.deepcopy(tower))
        whole = EffortFinetuneDetector(settings.changed(**against), tower=tower) if against else model
        precision = resolve_precision(settings.precision, torch.device("cpu"))
        run = feature_run(model, RunData(frames, loader, {}, {}), settings, [])
        if run is None:
            raise RuntimeError("features are not kept: not what this row measures")
        started = time.perf_counter()
        run.compute(settings, precision, lambda: False)
        computed = time.perf_counter() - started

        def epochs(trained: torch.nn.Module, batches: DataLoader[Any]) -> Callable[[], object]:
            optimizer = build_optimizer(trained, settings)
            loop = TrainingLoop(trained, optimizer, precision, torch.device("cpu"))
            numbers = itertools.count()
            return lambda: loop.run_epoch(batches, EpochProgress(next(numbers)))

        measured = interleaved(
            {"through_the_tower": epochs(whole, loader), "on_features": epochs(run.model, run.loader)},
            repeats=options.repeats,
            clock=options.clock,
        )
    return {**measured, "computing_the_features_s": computed}


def _setup(options: Namespace, layers: int) -> str:
    precision = resolve_precision("auto", torch.device("cpu"))
    return (
        f"{layers} layers of ViT-L/14, {2 * len(GROUPS) * FRAMES} crops in an LMDB, batch {options.batch}, "
        f"{precision.name}, {options.threads} threads"
    )
