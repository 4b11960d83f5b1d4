"""The trainer a DeepfakeBench's own ``train.py`` drives: the host's loaders, our epoch.

What it repairs of that loop without touching it: ``nEpochs`` epochs instead of one more, a
schedule that steps, accumulation, clipping, autocast, a resumable last checkpoint, video metrics
by the frame's whole folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from effort_finetune.config import settings_from_config
from effort_finetune.core.device import choose_device
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import ensure_writable_dir
from effort_finetune.core.precision import resolve_precision
from effort_finetune.core.progress import bar
from effort_finetune.evaluate.run_folder import set_aside
from effort_finetune.guest.scoring import measure_loader
from effort_finetune.train.epoch_progress import EpochProgress
from effort_finetune.train.loop import Record, TrainingLoop
from effort_finetune.train.run_files import is_resumed_in
from effort_finetune.train.schedule import advance, build_scheduler
from effort_finetune.train.selection import Selector, mean_of_known
from effort_finetune.weights import run_state as checkpoint

if TYPE_CHECKING:
    from effort_finetune.host import Host

Results = dict[str, dict[str, float]]
_FILES = (checkpoint.BEST_NAME, checkpoint.LAST_NAME, "*/*/events.out.tfevents.*")
_LOGGED = ("auc", "eer", "acc", "ap", "video_auc", "video_eer", "video_acc", "host_auc", "host_video_auc")


class EffortFinetuneTrainer:
    """Trains and tests a detector epoch by epoch for a host's ``train.py``.

    Args:
        config: The dictionary the host made of its YAML files and flags.
        model: A detector; it is moved to the device.
        optimizer: The host's.
        scheduler: The host's, stepped here once an epoch. ``None`` with ``lr_scheduler`` set (what
            upstream hands over for ``linear``) is replaced by ours.
        logger: The host's.
        metric_scoring: Metric that chooses ``ckpt_best.pth``.
        time_now: Names the run's folder.
        swa_model: Not offered.

    Attributes:
        start_epoch: First epoch to run, after that of a resumed checkpoint.
        val_data_loaders: Loaders that choose the checkpoint, if the host sets any. Otherwise the
            test loaders do, as in upstream, and the log says so.
        writers: TensorBoard writers by ``<phase>-<dataset>``; the host closes them.
        host: Set by the factory in the host's registry; adds the host's own metrics to ours.

    Raises:
        UserError: If a setting cannot be used, or weight averaging or DDP is asked for.
    """

    host: Host | None = None

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
        for name, asked in {"SWA": swa_model is not None, "ddp": bool(config.get("ddp"))}.items():
            if asked:
                raise UserError(
                    name,
                    got="true",
                    expected="false",
                    next_step="set trainer: null for the host's own trainer",
                )
        self.config = config
        self.settings = settings_from_config(config)
        self.logger = logger
        self.metric_scoring = metric_scoring
        self.device = choose_device(self.settings.device)
        self.precision = resolve_precision(self.settings.precision, self.device)
        self.model = model.to(self.device)
        self.model.device = self.device  # type: ignore[assignment]
        self.optimizer = optimizer
        self.scheduler = build_scheduler(optimizer, self.settings) if scheduler is None else scheduler
        self.loop = TrainingLoop(
            self.model,
            optimizer,
            self.precision,
            self.device,
            accumulation_steps=self.settings.accumulation_steps,
            clip_grad_norm=self.settings.clip_grad_norm,
            rec_iter=self.settings.rec_iter,
            on_record=self._record,
        )
        self.log_dir = ensure_writable_dir(_folder(config, time_now))
        goes_on = is_resumed_in(self.log_dir, self.settings)
        if not goes_on and (aside := set_aside(self.log_dir, _FILES)):
            logger.warning("what an earlier run left in %s is now in %s", self.log_dir, aside)
        self.writers: dict[str, SummaryWriter] = {}
        self.val_data_loaders: Mapping[str, DataLoader[Any]] = {}
        self.selector = Selector("val", metric_scoring)
        self.best_results: Results = {}
        self.start_epoch = self.settings.start_epoch
        if self.settings.resume is not None:
            self._resume(self.settings.resume)

    def train_epoch(
        self,
        epoch: int,
        train_data_loader: DataLoader[Any],
        test_data_loaders: Mapping[str, DataLoader[Any]] | None = None,
    ) -> Results:
        """Trains on every batch once, tests, and saves the last and the best state.

        An epoch before the resumed one or after the last of ``nEpochs`` does nothing: upstream's
        loop runs one too many.

        Args:
            epoch: Number of the epoch.
            train_data_loader: The host's training batches.
            test_data_loaders: The host's test loaders by dataset.

        Returns:
            ``{dataset: {metric: value}, 'avg': {metric: mean}}`` of the best epoch so far.

        Raises:
            RunFailure: If a loss is not finite or memory runs out; the last epoch's state is saved.
        """
        if not self.start_epoch <= epoch < self.settings.start_epoch + self.settings.nEpochs:
            self.logger.info("epoch %d is not one of the %d to run", epoch, self.settings.nEpochs)
            return self.best_results
        self._tell_class_counts(train_data_loader)
        sampler = getattr(train_data_loader, "sampler", None)
        if sampler is not None and hasattr(
            sampler, "set_epoch"
        ):  # ours and torch's distributed one; a resumed run starts late
            sampler.set_epoch(epoch)
        batches = len(train_data_loader)
        with bar(total=batches, desc=f"epoch {epoch}", unit="batch") as progress:

            def advance_bar(count: int, loss: float) -> None:
                progress.set_postfix(loss=f"{loss:.4f}", refresh=False)
                progress.update(count)

            self.loop.on_step = advance_bar
            done = self.loop.run_epoch(train_data_loader, EpochProgress(epoch))
        losses = ", ".join(f"{term} {value:.4f}" for term, value in done.means().items())
        self.logger.info("epoch %d trained: loss %s; %.1f s", epoch, losses, done.seconds)
        step = (epoch + 1) * batches
        results, losses_of = self._test("test", test_data_loaders or {}, step)
        chooser = results
        if self.val_data_loaders:
            chooser, losses_of = self._test("val", self.val_data_loaders, step)
        advance(self.scheduler)
        self._keep(epoch, results, chooser, losses_of)
        return self.best_results

    def _test(
        self, phase: str, loaders: Mapping[str, DataLoader[Any]], step: int
    ) -> tuple[Results, dict[str, float | None]]:
        """Measures every loader; returns the metrics with their mean, and the loss of each dataset."""
        results: Results = {}
        overall: dict[str, float | None] = {}
        for name, loader in loaders.items():
            values, losses = measure_loader(
                self.model,
                loader,
                self.host,
                name=name,
                threshold=self.settings.threshold,
                device=self.device,
                precision=self.precision,
            )
            results[name], overall[name] = values, losses.get("overall")
            self._scalars(phase, name, {f"{phase}_metrics/{k}": v for k, v in values.items()}, step)
            self._scalars(phase, name, {f"{phase}_losses/{k}": v for k, v in losses.items()}, step)
            shown = {"loss": overall[name], **{metric: values.get(metric) for metric in _LOGGED}}
            text = ", ".join(f"{metric} {v:.4f}" for metric, v in shown.items() if v is not None)
            self.logger.info("%s of %s: %s", phase, name, text)
        if results:
            shared = set.intersection(*(set(values) for values in results.values()))
            first = next(iter(results.values()))
            average = {m: mean_of_known({n: v[m] for n, v in results.items()}) for m in first if m in shared}
            results["avg"] = {metric: value for metric, value in average.items() if value is not None}
        return results, overall

    def _keep(
        self, epoch: int, results: Results, chooser: Results, losses: Mapping[str, float | None]
    ) -> None:
        values = {n: v.get(self.metric_scoring) for n, v in chooser.items() if n != "avg"}
        if not values:
            self.logger.warning("nothing to test on: the last epoch counts as the best")
        # Without a number the newest state is the one to keep: an earlier one has nothing for it.
        chosen = self.selector.consider(epoch, values, losses) or self.selector.needs_fallback
        if chosen:
            self.best_results = results
        if not self.config.get("save_ckpt", True):
            return
        if chosen:
            checkpoint.save_best(self.log_dir / checkpoint.BEST_NAME, self.model)
            on = "val" if self.val_data_loaders else "the test sets (an oracle)"
            self.logger.info("epoch %d is the best so far by %s on %s", epoch, self.metric_scoring, on)
        if (epoch - self.settings.start_epoch + 1) % self.settings.save_epoch == 0:
            self._save_last(epoch)

    def _save_last(self, epoch: int) -> None:
        checkpoint.save_last(
            self.log_dir / checkpoint.LAST_NAME,
            model=self.model,
            settings=self.settings.to_dict(),
            state={
                "epoch": epoch + 1,
                "optimizer": self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "scaler": self.loop.scaler.state_dict(),
                "selection": self.selector.state_dict(),
                "best_results": self.best_results,
            },
        )

    def _resume(self, path: str) -> None:
        saved = checkpoint.load_last(path)
        if "best_results" not in saved:
            raise UserError(
                "resume",
                got=f"{path}, written by finetune",
                expected=f"the {checkpoint.LAST_NAME} of a host's train.py",
                next_step="resume it with finetune --resume",
            )
        checkpoint.check_settings(saved["settings"], self.settings.to_dict())
        checkpoint.check_epochs(saved, self.settings.start_epoch, self.settings.nEpochs)
        checkpoint.restore(saved, self.model, self.optimizer, self.scheduler, self.loop.scaler)
        self.selector.load_state_dict(saved["selection"])
        self.best_results = saved["best_results"]
        if self.selector.best is not None and self.config.get("save_ckpt", True):
            checkpoint.carry_best(checkpoint.folder_of(path), self.log_dir / checkpoint.BEST_NAME)
        self.start_epoch = saved["epoch"]
        # The model was built from the saved state; what stays on record is where the run began.
        began = saved["settings"]["pretrained_weights"]
        self.settings = self.settings.changed(pretrained_weights=began)
        checkpoint.set_rng_state(saved["rng"])
        self.logger.info("resumed from %s at epoch %d", path, self.start_epoch)

    def _tell_class_counts(self, loader: DataLoader[Any]) -> None:
        if self.settings.loss.class_weights != "balanced" or not hasattr(self.model, "set_class_counts"):
            return
        labels = loader.dataset.data_dict["label"]  # type: ignore[attr-defined]
        fake = sum(int(label != 0) for label in labels)
        if not 0 < fake < len(labels):
            raise RunFailure("loss.class_weights 'balanced' needs training frames of both classes")
        self.model.set_class_counts(len(labels) - fake, fake)  # type: ignore[operator]

    def _record(self, record: Record) -> None:
        losses = ", ".join(f"{term} {value:.4f}" for term, value in record.loss.items())
        self.logger.info(
            "epoch %d, batch %d of %d: loss %s; lr %g, %.1f frames/s",
            *(record.epoch, record.batch, record.batches, losses, record.lr, record.samples_per_second),
        )
        step = record.epoch * record.batches + record.batch
        values = {f"train_loss/{term}": value for term, value in record.loss.items()}
        self._scalars("train", ",".join(self.settings.train_dataset), {**values, "lr": record.lr}, step)

    def _scalars(self, phase: str, dataset: str, values: Mapping[str, float], step: int) -> None:
        key = f"{phase}-{dataset}"
        if key not in self.writers:
            self.writers[key] = SummaryWriter(str(self.log_dir / phase / dataset))
        for name, value in values.items():
            self.writers[key].add_scalar(name, value, step)


def _folder(config: Mapping[str, Any], time_now: str | None) -> Path:
    """Returns the run's folder: ``output_dir``, else upstream's ``<log_dir>/<model>[_<task>]_<time>``."""
    if config.get("output_dir"):
        return Path(config["output_dir"])
    task = f"_{config['task_target']}" if config.get("task_target") else ""
    stamp = time_now or time.strftime("%Y-%m-%d-%H-%M-%S")
    return Path(config["log_dir"]) / f"{config['model_name']}{task}_{stamp}"
