"""Train a detector: ``python training/train.py --detector_path training/config/detector/meso4.yaml``."""

from __future__ import annotations

# >>> effort-finetune
import importlib.util
if importlib.util.find_spec('effort_finetune'):
    from effort_finetune.guest import take_over
    take_over(__file__, __name__)
# <<< effort-finetune
import argparse
import random
import sys
import time
from typing import Any

import numpy as np
import torch
from config.loader import HostError, load_config
from dataset.abstract_dataset import DeepfakeAbstractBaseDataset
from detectors import DETECTOR
from logger import create_logger
from metrics.registry import RegistryError
from torch import optim
from torch.utils.data import DataLoader
from trainer.trainer import Trainer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--detector_path", required=True, help="the detector's YAML")
parser.add_argument("--train_dataset", nargs="+", help="training datasets, over the YAML's")
parser.add_argument("--test_dataset", nargs="+", help="test datasets, over the YAML's")
parser.add_argument("--no-save_ckpt", dest="save_ckpt", action="store_false", help="write no checkpoints")
parser.add_argument("--no-save_feat", dest="save_feat", action="store_false", help="write no features")
parser.add_argument("--ddp", action="store_true", help="not offered by this bench")
parser.add_argument("--local_rank", type=int, default=0, help="set by torchrun")
parser.add_argument("--task_target", default=None, help="a word for the name of the run's folder")


def init_seed(config: dict[str, Any]) -> None:
    """Seed Python, NumPy and torch; loader workers are seeded from torch."""
    seed = config.get("manualSeed") or random.randint(1, 10000)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def prepare_training_data(config: dict[str, Any]) -> DataLoader:
    """Return the shuffled training loader over all of ``train_dataset``."""
    return _loader(config, "train")


def prepare_testing_data(config: dict[str, Any]) -> dict[str, DataLoader]:
    """Return a loader of each test set, in its own order."""
    return {name: _loader({**config, "test_dataset": name}, "test") for name in config["test_dataset"]}


def _loader(config: dict[str, Any], mode: str) -> DataLoader:
    dataset = DeepfakeAbstractBaseDataset(config, mode)
    return DataLoader(
        dataset,
        batch_size=config[f"{mode}_batchSize"],
        shuffle=mode == "train",
        num_workers=config["workers"],
        collate_fn=dataset.collate_fn,
    )


def choose_optimizer(model: torch.nn.Module, config: dict[str, Any]) -> optim.Optimizer:
    """Build ``optimizer.type`` from the values under its name."""
    kind = config["optimizer"]["type"]
    options = config["optimizer"].get(kind, {})
    shared = {"lr": options.get("lr"), "weight_decay": options.get("weight_decay", 0.0)}
    if kind == "sgd":
        return optim.SGD(model.parameters(), momentum=options["momentum"], **shared)
    if kind == "adam":
        betas = (options["beta1"], options["beta2"])
        return optim.Adam(
            model.parameters(), betas=betas, eps=options["eps"], amsgrad=options["amsgrad"], **shared
        )
    raise HostError(f"optimizer.type is '{kind}', expected adam or sgd")


def choose_scheduler(config: dict[str, Any], optimizer: optim.Optimizer) -> Any:
    """Build ``lr_scheduler``, to be stepped once an epoch; None when it is null."""
    name = config.get("lr_scheduler")
    if name is None:
        return None
    if name == "cosine":
        return optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=config["lr_T_max"], eta_min=config["lr_eta_min"]
        )
    if name == "step":
        return optim.lr_scheduler.StepLR(optimizer, step_size=config["lr_step"], gamma=config["lr_gamma"])
    raise HostError(f"lr_scheduler is '{name}', expected null, cosine or step")


def choose_metric(config: dict[str, Any]) -> str:
    """Return ``metric_scoring``."""
    if config["metric_scoring"] not in ("eer", "auc", "acc", "ap"):
        raise HostError(f"metric_scoring is '{config['metric_scoring']}', expected auc, acc, eer or ap")
    return config["metric_scoring"]


def main() -> None:
    """Run a whole training."""
    args = parser.parse_args()
    config = load_config(args.detector_path, "train")
    config["train_dataset"] = args.train_dataset or config["train_dataset"]
    config["test_dataset"] = args.test_dataset or config["test_dataset"]
    config.update(save_ckpt=args.save_ckpt, save_feat=args.save_feat)
    config.update(ddp=args.ddp, local_rank=args.local_rank)
    config["task_target"] = args.task_target or config.get("task_target")
    for key in ("ddp", "SWA"):
        if config.get(key):
            raise HostError(f"{key} is true, which this bench does not offer")
    init_seed(config)
    train_data_loader, test_data_loaders = prepare_training_data(config), prepare_testing_data(config)
    model = DETECTOR[config["model_name"]](config)
    optimizer = choose_optimizer(model, config)
    scheduler = choose_scheduler(config, optimizer)
    timenow = time.strftime("%Y-%m-%d-%H-%M-%S")
    task = f"_{config['task_target']}" if config["task_target"] else ""
    logger = create_logger(f"{config['log_dir']}/{config['model_name']}{task}_{timenow}/training.log")
    logger.info("settings: %s", config)
    trainer = Trainer(config, model, optimizer, scheduler, logger, choose_metric(config), time_now=timenow)
    best: dict[str, Any] = {}
    for epoch in range(config["start_epoch"], 0 if config.get("dry_run") else config["nEpochs"]):
        trainer.model.epoch = epoch
        best = trainer.train_epoch(epoch, train_data_loader, test_data_loaders)
    for name, metrics in best.items():
        logger.info("best on %s: %s", name, metrics)
    for writer in trainer.writers.values():
        writer.close()


if __name__ == "__main__":
    try:
        main()
    except (HostError, RegistryError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
