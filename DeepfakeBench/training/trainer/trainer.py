"""The bench's own trainer: any detector, one optimiser, whole epochs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from config.errors import RunFailure, SettingError
from metrics.base_metrics_class import Recorder
from metrics.registry import TRAINER
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import checkpoint
from .device import choose_device, to_device
from .inference import Predictions, predict, scalars, score

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Results = dict[str, dict[str, float | None]]
METRICS = ("acc", "auc", "eer", "ap", "video_acc", "video_auc", "video_eer")
LOWER_IS_BETTER = ("eer", "video_eer")


def mean_of(results: Results) -> dict[str, float | None]:
    """Average each metric over datasets; a dataset where it is None does not count."""
    names = dict.fromkeys(name for metrics in results.values() for name in metrics)
    means: dict[str, float | None] = {}
    for name in names:
        values = [value for metrics in results.values() if (value := metrics.get(name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


@TRAINER.register_module(module_name="default")
class Trainer:
    """Trains a detector epoch by epoch and keeps its last and best state.

    The run's folder gets ``ckpt_last.pth`` (everything needed to go on), ``ckpt_best.pth`` (a plain state
    dict) and TensorBoard events under ``train/`` and ``test/<dataset>/``.

    Args:
        config: The run's settings.
        model: A detector; it is moved to the device.
        optimizer: Over the model's trainable parameters.
        scheduler: Stepped once at the end of each epoch; None keeps the rate.
        logger: Gets the run's lines.
        metric_scoring: The metric that tells the best epoch.
        time_now: Names the run's folder.
        swa_model: Weight averaging is not offered; anything but None is refused.

    Attributes:
        start_epoch: The first epoch to run: ``config['start_epoch']``, or after the resumed checkpoint's.
        val_data_loaders: Loaders that choose the best epoch. Without any, the test loaders do, and the log
            says so.
        writers: TensorBoard writers by ``<phase>/<dataset>``; the caller closes them.

    Raises:
        SettingError: Weight averaging was asked for, or the metric, the device or the checkpoint to resume
            cannot be used.
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
            raise SettingError("this bench has no stochastic weight averaging; set SWA: false")
        if metric_scoring not in METRICS:
            raise SettingError(f"metric_scoring is '{metric_scoring}', expected one of: {', '.join(METRICS)}")
        self.config = config
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.logger = logger
        self.metric_scoring = metric_scoring
        self.distributed = bool(config.get("ddp"))
        local_rank = config.get("local_rank") if self.distributed else None
        self.is_main = not self.distributed or torch.distributed.get_rank() == 0
        self.device = choose_device(config.get("device") or "auto", local_rank)
        self.detector = model.to(self.device)
        self.detector.device = self.device
        self.model: nn.Module = self.detector
        if self.distributed:
            devices = [self.device] if self.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.detector, device_ids=devices)
        time_now = time_now or time.strftime("%Y-%m-%d-%H-%M-%S")
        self.log_dir: Path = checkpoint.run_dir(config, time_now)
        self.writers: dict[str, SummaryWriter] = {}
        self.val_data_loaders: dict[str, DataLoader] = {}
        self.start_epoch = int(config.get("start_epoch") or 0)
        self.best_score: float | None = None
        self.best_results: Results = {}
        if config.get("resume"):
            self._resume(config["resume"])

    def _resume(self, path: str) -> None:
        state = checkpoint.read(path)
        if not isinstance(state, dict) or not {"model", "optimizer", "epoch", "best_score"} <= state.keys():
            raise SettingError(
                f"{path} is not a {checkpoint.LAST}; give --pretrained_weights to start from weights"
            )
        checkpoint.load_weights(self.detector, path)
        self.optimizer.load_state_dict(state["optimizer"])
        if not self.distributed:
            torch.set_rng_state(state["rng"])
            if self.device.type == "cuda" and state["cuda_rng"] is not None:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.start_epoch = state["epoch"] + 1
        self.best_score, self.best_results = state["best_score"], state["best_results"]
        self.logger.info("resumed from %s after epoch %d", path, state["epoch"])

    def _log_scalars(self, phase: str, values: Mapping[str, float | None], step: int) -> None:
        # Here, because it takes seconds, and test.py, which needs this module too, writes no events.
        from torch.utils.tensorboard import SummaryWriter

        if phase not in self.writers:
            self.writers[phase] = SummaryWriter(str(self.log_dir / phase))
        for name, value in values.items():
            if value is not None:
                self.writers[phase].add_scalar(name, value, step)

    def train_step(
        self, data_dict: dict[str, Any]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Make one optimiser step on a batch that lies on the device.

        Returns:
            The detector's losses and its predictions.

        Raises:
            RunFailure: The loss is not finite.
        """
        predictions = self.model(data_dict)
        losses = self.detector.get_losses(data_dict, predictions)
        if not math.isfinite(losses["overall"].item()):
            raise RunFailure(
                f"the loss is {losses['overall'].item()}; lower the learning rate or check the data"
            )
        self.optimizer.zero_grad()
        losses["overall"].backward()
        self.optimizer.step()
        return losses, predictions

    def train_epoch(
        self,
        epoch: int,
        train_data_loader: DataLoader,
        test_data_loaders: Mapping[str, DataLoader] | None = None,
    ) -> Results:
        """Train on every batch once, then test on every dataset and save.

        Args:
            epoch: Number of the epoch, from 0.
            train_data_loader: The training batches.
            test_data_loaders: Loaders by dataset name.

        Returns:
            ``{dataset: {metric: value}, 'avg': {metric: mean}}`` on the test sets, of the best epoch so far.
        """
        if self.distributed:
            train_data_loader.sampler.set_epoch(epoch)
        self.model.train()
        recorders: dict[str, Recorder] = {}
        batches = len(train_data_loader)
        hidden = None if self.is_main else True
        progress = tqdm(train_data_loader, desc=f"epoch {epoch}", unit="batch", leave=False, disable=hidden)
        for number, batch in enumerate(progress, start=1):
            data_dict = to_device(batch, self.device)
            losses, predictions = self.train_step(data_dict)
            with torch.no_grad():
                metrics = self.detector.get_train_metrics(data_dict, predictions)
            for kind, values in (("loss", losses), ("metric", metrics)):
                for name, value in values.items():
                    recorders.setdefault(f"{kind}/{name}", Recorder()).update(value)
            if self.is_main and (number % self.config.get("rec_iter", 100) == 0 or number == batches):
                self._record(epoch, number, batches, recorders)
                recorders = {}
        if self.scheduler is not None:
            self.scheduler.step()
        if self.is_main:
            self._finish_epoch(epoch, test_data_loaders or {})
        if self.distributed:
            torch.distributed.barrier()
        return self.best_results

    def _record(self, epoch: int, number: int, batches: int, recorders: Mapping[str, Recorder]) -> None:
        values = {name: recorder.average() for name, recorder in recorders.items()}
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        self._log_scalars("train", values, epoch * batches + number)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None)
        self.logger.info("epoch %d  batch %d/%d  %s", epoch, number, batches, text)

    def test_epoch(self, epoch: int, loaders: Mapping[str, DataLoader], phase: str = "test") -> Results:
        """Test on every dataset and log it; returns the metrics by dataset, and their mean as ``avg``."""
        results: Results = {}
        for name, loader in loaders.items():
            features = phase == "test" and bool(self.config.get("save_feat"))
            predictions = predict(self.detector, loader, self.device, features=features, desc=name)
            results[name] = scalars(score(predictions, loader.dataset))
            losses = {f"loss/{key}": value for key, value in predictions.losses.items()}
            self._log_scalars(f"{phase}/{name}", {**results[name], **losses}, epoch)
            text = "  ".join(
                f"{key} {value:.4f}" for key, value in results[name].items() if value is not None
            )
            self.logger.info("epoch %d  %s %s  %s", epoch, phase, name, text)
            if features:
                self._save_features(name, predictions)
        if results:
            results["avg"] = mean_of(results)
        return results

    def _save_features(self, name: str, predictions: Predictions) -> None:
        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, feat=predictions.feat, prob=predictions.prob, label=predictions.label)

        checkpoint.write_atomically(self.log_dir / "test" / name / "features.npz", write)

    def _finish_epoch(self, epoch: int, test_data_loaders: Mapping[str, DataLoader]) -> None:
        results = self.test_epoch(epoch, test_data_loaders)
        chooser, chosen_on = results, "the test sets"
        if self.val_data_loaders:
            chooser, chosen_on = self.test_epoch(epoch, self.val_data_loaders, "val"), "the val split"
        value = chooser.get("avg", {}).get(self.metric_scoring)
        score_now = -value if value is not None and self.metric_scoring in LOWER_IS_BETTER else value
        if score_now is None:
            self.logger.warning(
                "%s cannot be computed on %s; the last epoch is kept", self.metric_scoring, chosen_on
            )
        # An equal score goes to the later epoch, which has seen more data.
        improved = score_now is None or self.best_score is None or score_now >= self.best_score
        if improved:
            self.best_score, self.best_results = score_now, results
        if not self.config.get("save_ckpt", True):
            return
        if improved:
            checkpoint.save(self.detector.state_dict(), self.log_dir / checkpoint.BEST)
            self.logger.info("epoch %d is the best so far (%s on %s)", epoch, self.metric_scoring, chosen_on)
        checkpoint.save(
            {
                "model": self.detector.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
                "epoch": epoch,
                "best_score": self.best_score,
                "best_results": self.best_results,
            },
            self.log_dir / checkpoint.LAST,
        )
