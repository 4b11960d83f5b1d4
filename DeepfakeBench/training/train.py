"""Train a detector: ``python training/train.py --detector_path training/config/detector/meso4.yaml``.

Every setting of the YAML files can be given as a flag, dotted where it is nested: ``--nEpochs 3
--optimizer.lr 1e-3``.
"""

from __future__ import annotations

# >>> effort-finetune
import importlib.util
if importlib.util.find_spec('effort_finetune'):
    from effort_finetune.guest import take_over
    take_over(__file__, __name__)
# <<< effort-finetune
import argparse
import contextlib
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))

from config.errors import SettingError, run_command
from config.loader import load_config, parse_overrides
from dataset.abstract_dataset import DeepfakeAbstractBaseDataset
from dataset.errors import EmptySplitError
from logger import RankFilter, create_logger
from optimizor import choose_optimizer, choose_scheduler
from torch.utils.data import DataLoader, DistributedSampler
from trainer import TRAINER, Trainer, checkpoint
from trainer.setup import build_model, split_loader

SETTING_FLAGS = ("train_dataset", "test_dataset", "pretrained_weights", "resume", "output_dir")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags that are no settings of a YAML file, and of the common ones that are."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--detector_path", required=True, help="the detector's YAML")
    parser.add_argument("--train_dataset", nargs="+", help="training datasets, over the YAML's")
    parser.add_argument("--test_dataset", nargs="+", help="test datasets, over the YAML's")
    parser.add_argument("--no-save_ckpt", dest="save_ckpt", action="store_false", help="write no checkpoints")
    parser.add_argument("--no-save_feat", dest="save_feat", action="store_false", help="write no features")
    parser.add_argument("--ddp", action="store_true", help="distributed run, started by torchrun")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    parser.add_argument("--local_rank", "--local-rank", type=int, default=local_rank, help="set by torchrun")
    parser.add_argument("--task_target", help="a word for the name of the run's folder")
    parser.add_argument("--pretrained_weights", help="checkpoint to start from")
    parser.add_argument("--resume", help="ckpt_last.pth of a run to go on with")
    parser.add_argument("--output_dir", help="the run's folder (default: log_dir/<model_name>_<time>)")
    return parser


def settings_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the run's settings from the command line and the files it names."""
    known, rest = build_parser().parse_known_args(arguments)
    flags = {name: getattr(known, name) for name in SETTING_FLAGS}
    overrides = {name: value for name, value in flags.items() if value is not None}
    config = load_config(known.detector_path, "train", {**overrides, **parse_overrides(rest)})
    # A --no flag only ever switches off.
    for name in ("save_ckpt", "save_feat"):
        if not getattr(known, name):
            config[name] = False
    config["ddp"], config["local_rank"] = known.ddp, known.local_rank
    if known.task_target:
        config["task_target"] = known.task_target
    if config.get("SWA"):
        raise SettingError("SWA is true, but this bench has no stochastic weight averaging")
    return config


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; loader workers are seeded from torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def val_loaders(config: dict[str, Any]) -> dict[str, DataLoader]:
    """Return the loaders that choose the best epoch: val splits of ``val_dataset`` or the training sets.

    A training set without a val split gives none; a ``val_dataset`` without one is an error.
    """
    if config.get("val_dataset"):
        return {name: split_loader(config, name, "val") for name in config["val_dataset"]}
    loaders = {}
    for name in config["train_dataset"]:
        # Many published indices have no val split.
        with contextlib.suppress(EmptySplitError):
            loaders[name] = split_loader(config, name, "val")
    return loaders


def train_loader(config: dict[str, Any]) -> DataLoader:
    """Return the shuffled training loader over all of ``train_dataset``."""
    dataset = DeepfakeAbstractBaseDataset(config, "train")
    sampler = DistributedSampler(dataset, seed=config.get("manualSeed") or 0) if config["ddp"] else None
    return DataLoader(
        dataset,
        batch_size=config["train_batchSize"],
        shuffle=sampler is None,
        sampler=sampler,
        num_workers=config.get("workers", 0),
        collate_fn=dataset.collate_fn,
    )


def trainer_class(config: dict[str, Any]) -> type:
    """Return the trainer that ``trainer`` names; without that setting the model's own, else the bench's."""
    name = config["trainer"] if "trainer" in config else config["model_name"]
    if name is None or ("trainer" not in config and name not in TRAINER):
        return Trainer
    return TRAINER[name]


def train(arguments: Sequence[str]) -> int:
    """Run a whole training; returns the exit code."""
    config = settings_of(arguments)
    if config["ddp"]:
        if "RANK" not in os.environ:
            raise SettingError(
                "--ddp needs torchrun: torchrun --nproc_per_node=N training/train.py --ddp ..."
            )
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if config.get("manualSeed") is not None:
        # The processes of a distributed run augment differently; their weights are those of the first.
        seed_everything(int(config["manualSeed"]) + int(os.environ.get("RANK", "0")) * config["ddp"])
    torch.backends.cudnn.benchmark = bool(config.get("cudnn"))

    training = train_loader(config)
    testing = {name: split_loader(config, name, "test") for name in config.get("test_dataset") or []}
    model = build_model(config)
    optimizer = choose_optimizer(model, config)
    scheduler = choose_scheduler(config, optimizer)

    time_now = time.strftime("%Y-%m-%d-%H-%M-%S")
    folder = checkpoint.run_dir(config, time_now)
    checkpoint.ensure_writable(folder)
    logger = create_logger(folder / "training.log")
    rank = torch.distributed.get_rank() if config["ddp"] else 0
    logger.addFilter(RankFilter(rank))
    logger.info("run folder %s", folder)
    logger.info("settings\n%s", yaml.safe_dump(config, sort_keys=True).rstrip())
    trainer = trainer_class(config)(
        config, model, optimizer, scheduler, logger, config.get("metric_scoring", "auc"), time_now=time_now
    )
    if hasattr(trainer, "val_data_loaders"):
        trainer.val_data_loaders = val_loaders(config)
    if config.get("dry_run"):
        logger.info("dry run: everything could be built")
        return 0
    model.epoch = 0
    best: dict[str, Any] = {}
    try:
        for epoch in range(
            getattr(trainer, "start_epoch", config.get("start_epoch") or 0), config["nEpochs"]
        ):
            model.epoch = epoch
            best = trainer.train_epoch(epoch, training, testing)
    finally:
        for writer in trainer.writers.values():
            writer.close()
        if config["ddp"]:
            torch.distributed.destroy_process_group()
    for name, metrics in best.items():
        text = "  ".join(f"{key} {value:.4f}" for key, value in metrics.items() if isinstance(value, float))
        logger.info("best on %s: %s", name, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(train, sys.argv[1:]))
