"""The bench's own trainer: any detector, one optimiser, whole epochs, the best one by the test sets."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from metrics.base_metrics_class import Recorder
from metrics.utils import get_test_metrics
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Results = dict[str, dict[str, float | None]]


def to_device(data_dict: dict[str, Any]) -> dict[str, Any]:
    """Move a batch to the device; labels above 0 become 1, as detectors tell real from fake."""
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in data_dict.items()}
    return {**moved, "label": (moved["label"] > 0).long()}


def test_one_dataset(model: nn.Module, loader: DataLoader) -> dict[str, Any]:
    """Return ``get_test_metrics`` of a detector on a loader that keeps its dataset's order."""
    model.eval()
    prob, label = [], []
    for batch in tqdm(loader, leave=False, disable=None):
        data_dict = to_device(batch)
        with torch.no_grad():
            prob.append(model(data_dict, inference=True)["prob"].reshape(-1).cpu())
        label.append(data_dict["label"].cpu())
    names = loader.dataset.data_dict["image"]
    return get_test_metrics(torch.cat(prob).numpy(), torch.cat(label).numpy(), names)


def scalars(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the metrics that are one number (or None), without the arrays."""
    return {name: value for name, value in metrics.items() if name not in ("pred", "label")}


class Trainer:
    """Trains a detector epoch by epoch.

    The run's folder gets ``test/avg/ckpt_best.pth`` (a plain state dict) and TensorBoard events.

    Args:
        config: The run's settings.
        model: A detector; it is moved to the device.
        optimizer: Over the model's trainable parameters.
        scheduler: Stepped once an epoch; None keeps the rate.
        logger: Gets the run's lines.
        metric_scoring: The metric that tells the best epoch.
        time_now: Names the run's folder.
        swa_model: Weight averaging is not offered; anything but None is refused.

    Attributes:
        writers: TensorBoard writers by phase and dataset; the caller closes them.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        logger: logging.Logger,
        metric_scoring: str = "auc",
        time_now: str | None = None,
        swa_model: nn.Module | None = None,
    ) -> None:
        if swa_model is not None:
            raise NotImplementedError("this bench has no stochastic weight averaging; set SWA: false")
        self.config, self.optimizer, self.scheduler, self.logger = config, optimizer, scheduler, logger
        self.model = model.to(device)
        self.model.device = device
        self.metric_scoring = metric_scoring
        task = f"_{config['task_target']}" if config.get("task_target") else ""
        stamp = time_now or time.strftime("%Y-%m-%d-%H-%M-%S")
        self.log_dir = Path(config["log_dir"]) / f"{config['model_name']}{task}_{stamp}"
        self.writers: dict[str, SummaryWriter] = {}
        self.best: float | None = None
        self.best_results: Results = {}

    def train_step(self, data_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Make one optimiser step on a batch that lies on the device; return its losses."""
        losses = self.model.get_losses(data_dict, self.model(data_dict))
        self.optimizer.zero_grad()
        losses["overall"].backward()
        self.optimizer.step()
        return losses

    def train_epoch(
        self,
        epoch: int,
        train_data_loader: DataLoader,
        test_data_loaders: Mapping[str, DataLoader] | None = None,
    ) -> Results:
        """Train on every batch once, test on every dataset, and save the weights of the best epoch.

        Returns:
            ``{dataset: {metric: value}, 'avg': {metric: mean}}`` of the best epoch so far.
        """
        self.model.train()
        losses: dict[str, Recorder] = {}
        for batch in tqdm(train_data_loader, desc=f"epoch {epoch}", leave=False, disable=None):
            for name, value in self.train_step(to_device(batch)).items():
                losses.setdefault(name, Recorder()).update(value)
        if self.scheduler is not None:
            self.scheduler.step()
        step = (epoch + 1) * len(train_data_loader)
        self._log("train", {f"train_loss/{name}": each.average() for name, each in losses.items()}, step)
        results: Results = {}
        for name, loader in (test_data_loaders or {}).items():
            results[name] = scalars(test_one_dataset(self.model, loader))
            self._log(f"test/{name}", {f"test_metrics/{k}": v for k, v in results[name].items()}, step)
        if results:
            results["avg"] = _means(results)
        self._keep(results)
        return self.best_results

    def save_ckpt(self, phase: str, dataset_key: str) -> None:
        """Save the weights as ``<phase>/<dataset>/ckpt_best.pth``."""
        folder = self.log_dir / phase / dataset_key
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), folder / "ckpt_best.pth")

    def _keep(self, results: Results) -> None:
        value = results.get("avg", {}).get(self.metric_scoring)
        score = -value if value is not None and self.metric_scoring == "eer" else value
        if score is None or self.best is None or score > self.best:
            self.best, self.best_results = score, results
            if self.config.get("save_ckpt", True):
                self.save_ckpt("test", "avg")

    def _log(self, phase: str, values: Mapping[str, float | None], step: int) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        if phase not in self.writers:
            self.writers[phase] = SummaryWriter(str(self.log_dir / phase))
        for name, value in known.items():
            self.writers[phase].add_scalar(name, value, step)
        self.logger.info("%s: %s", phase, ", ".join(f"{n.split('/')[-1]} {v:.4f}" for n, v in known.items()))


def _means(results: Results) -> dict[str, float | None]:
    """Average each metric over datasets; a dataset where it is None does not count."""
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(name for metrics in results.values() for name in metrics):
        values = [value for metrics in results.values() if (value := metrics.get(name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means
