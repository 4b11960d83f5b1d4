"""The trainer a DeepfakeBench's own ``train.py`` drives: the host's model and loaders, our engine.

What it repairs of that loop without touching it: ``nEpochs`` epochs instead of one more, a
schedule that steps, accumulation, clipping, autocast, early stopping, a run that goes on where it was
stopped, video metrics by the frame's whole folder.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from effort_finetune.config import settings_from_config
from effort_finetune.core.device import choose_device
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import ensure_writable_dir
from effort_finetune.core.interrupt import InterruptGuard
from effort_finetune.core.locks import hold
from effort_finetune.core.precision import resolve_precision
from effort_finetune.evaluate.run_folder import archive
from effort_finetune.guest.driven_run import DrivenRun
from effort_finetune.guest.scoring import numbers_of
from effort_finetune.host import Job
from effort_finetune.train.engine import Engine
from effort_finetune.train.failures import failure_of
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.train.reports import Reports
from effort_finetune.train.run_files import RUN_FILES, published_path, remove_state
from effort_finetune.train.run_history import Processes
from effort_finetune.train.run_log import LOG_NAME, logged_to
from effort_finetune.train.run_record import write_settings
from effort_finetune.train.schedule import Schedule, build_schedule
from effort_finetune.train.selection import Measured, mean_of_known
from effort_finetune.train.trackers import Trackers, require_trackers
from effort_finetune.weights import run_state

if TYPE_CHECKING:
    from effort_finetune.host import Host

Results = dict[str, dict[str, float]]


class EffortFinetuneTrainer:
    """Trains and tests a detector epoch by epoch for a host's ``train.py``.

    The host's test loaders choose the checkpoint, as in upstream; log and state call that an oracle.

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
        host: The host, which the factory in its registry adds: its own metrics stand beside ours.

    Attributes:
        engine: The run.
        start_epoch: First epoch to run, after that of a resumed checkpoint.
        writers: The run's curves; the host closes them.

    Raises:
        UserError: If a setting cannot be used, or weight averaging or DDP is asked for, or the run folder is
            in use.
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
        *,
        host: Host,
    ) -> None:
        for name, asked in {"SWA": swa_model is not None, "ddp": bool(config.get("ddp"))}.items():
            if asked:
                raise UserError(
                    name,
                    got="true",
                    expected="false",
                    next_step="set trainer: null for the host's own trainer",
                )
        self.config, self.model, self.optimizer, self.logger = config, model, optimizer, logger
        self.host, self._started = host, time.perf_counter()
        self._run: DrivenRun | None = None
        self.settings = settings_from_config(config).changed(select_on="test")
        require_trackers(self.settings)
        self.device = choose_device(self.settings.device)
        self.precision = resolve_precision(self.settings.precision, self.device)
        self.model.to(self.device)
        self.model.device = self.device  # type: ignore[assignment]
        self.scheduler = scheduler
        self.log_dir = ensure_writable_dir(_folder(config, time_now)).resolve()
        self._guard, self._held = InterruptGuard(), ExitStack()
        self._held.enter_context(hold(self.log_dir))  # until the process ends: a host says no end of a run
        self.writers: dict[str, Trackers] = {}
        self.engine = self._engine(metric_scoring)
        resume = self.settings.resume
        if resume is None or run_state.folder_of(resume).resolve() != self.log_dir:
            archived = archive(self.log_dir, RUN_FILES)
            if archived is not None:
                logger.warning("what an earlier run left in %s is now in %s", self.log_dir, archived)
        write_settings(self.log_dir / "settings.yaml", self.settings)
        command = self.engine.job.command_line()
        self._held.enter_context(logged_to(logger, self.log_dir / LOG_NAME, command=command))
        if resume is not None:
            self.engine.restore(run_state.load_last(resume))
            logger.info("resumed from %s at epoch %d", resume, self.engine.progress.epoch)
        self.start_epoch = self.engine.progress.epoch

    def _engine(self, metric: str) -> Engine:
        program, *words = sys.orig_argv
        command = (f"{program} {words[0]}", *words[1:]) if words else (program,)
        loop = TrainingLoop(
            self.model,
            self.optimizer,
            self.precision,
            self.device,
            accumulation_steps=self.settings.accumulation_steps,
            clip_grad_norm=self.settings.clip_grad_norm,
            rec_iter=self.settings.rec_iter,
            should_stop=self._guard,
        )
        return Engine(
            Job(self.settings, self.host, command),
            self.log_dir,
            model=self.model,
            optimizer=self.optimizer,
            schedule=build_schedule(self.optimizer, self.settings, steps=None)
            if self.scheduler is None
            else Schedule(self.scheduler),
            loop=loop,
            validate=None,
            processes=Processes(self.device, self.precision, self._started),
            reports=Reports(self.logger, None, self.device),
            metric=metric,
        )

    @property
    def best_results(self) -> Results:
        """``{dataset: {metric: value}, 'avg': {metric: mean}}`` of the best epoch so far."""
        epoch = self.engine.selector.report(())["epoch"]
        for entry in self.engine.history:
            if entry["epoch"] == epoch:
                return _with_average(entry["selection"])
        return {}

    def train_epoch(
        self,
        epoch: int,
        train_data_loader: DataLoader[Any],
        test_data_loaders: Mapping[str, DataLoader[Any]] | None = None,
    ) -> Results:
        """Trains on every batch once, tests, and saves the state.

        An epoch before the resumed one or after the last of ``nEpochs`` does nothing: upstream's
        loop runs one too many. With the last one ``ckpt_best.pth`` is written, read back and measured on the
        test loaders, for ``results.json`` and ``scores/``.

        Args:
            epoch: Number of the epoch.
            train_data_loader: The host's training batches.
            test_data_loaders: The host's test loaders by dataset.

        Returns:
            ``{dataset: {metric: value}, 'avg': {metric: mean}}`` of the best epoch so far.

        Raises:
            RunFailure: If it cannot go on for whatever reason; the state is saved.
        """
        engine = self.engine
        if engine.is_over or epoch != engine.progress.epoch:
            self.logger.info("epoch %d is not one of the %d to run", epoch, self.settings.nEpochs)
            return self.best_results
        if not self.writers:
            first = None if self.settings.resume is None else engine.steps_done(len(train_data_loader))
            self.writers["run"] = engine.reports.board = Trackers(
                self.log_dir, self.settings, first_step=first
            )
        loaders = test_data_loaders or {}
        run = self._driven(train_data_loader, loaders)
        try:
            with self._guard:
                run.log_start()
                self._tell_class_counts(train_data_loader)
                if not loaders:
                    self.logger.warning("nothing to test on: the last epoch counts as the best")
                engine.validate = (lambda: self._measure(run)) if loaders else None
                with engine.reports.bar(total=len(train_data_loader), done=engine.progress.batches):
                    engine.measure_start()
                    engine.epoch(train_data_loader)
                if engine.is_over:
                    engine.finish()
                    run.finish()
        except BaseException as error:
            failure = failure_of(error, engine)
            failure.__cause__ = error  # the results tell of it, too
            raise run.write(failure) from error
        finally:
            engine.validate = None
        if engine.is_over and not self.settings.save_ckpt:
            remove_state(self.log_dir)
        return self.best_results

    def _driven(self, loader: DataLoader[Any], tests: Mapping[str, DataLoader[Any]]) -> DrivenRun:
        """What this call reads: a host gives the same loaders each time."""
        if self._run is None or self._run.loader is not loader or self._run.tests != tests:
            asked = "save_to" in self.config  # a host's own YAML names no place beside its folder
            published = published_path(self.settings) if asked else None
            self._run = DrivenRun(
                self.engine, self.device, self.precision, loader, tests, published, self._started
            )
        return self._run

    def _measure(self, run: DrivenRun) -> Measured:
        """Scores every test loader of the host."""
        numbers = {name: numbers_of(run.measured(name)) for name in run.data.test}
        metric = self.engine.selector.metric.removeprefix("frame_")
        return Measured({name: values.get(metric) for name, values in numbers.items()}, numbers)

    def _tell_class_counts(self, loader: DataLoader[Any]) -> None:
        if self.settings.loss.class_weights != "balanced" or not hasattr(self.model, "set_class_counts"):
            return
        labels = loader.dataset.data_dict["label"]  # type: ignore[attr-defined]
        fake = sum(int(label != 0) for label in labels)
        if not 0 < fake < len(labels):
            raise RunFailure("loss.class_weights 'balanced' needs training frames of both classes")
        self.model.set_class_counts(len(labels) - fake, fake)  # type: ignore[operator]


def _with_average(measured: Mapping[str, Mapping[str, float | None]]) -> Results:
    """Returns what a host reads: metrics that could be computed, and their means over the datasets."""
    results = {
        name: {metric: value for metric, value in values.items() if value is not None and metric != "loss"}
        for name, values in measured.items()
    }
    if results:
        first, *others = results.values()
        shared = [metric for metric in first if all(metric in other for other in others)]
        means = {m: mean_of_known({name: values[m] for name, values in results.items()}) for m in shared}
        results["avg"] = {metric: value for metric, value in means.items() if value is not None}
    return results


def _folder(config: Mapping[str, Any], time_now: str | None) -> Path:
    """Returns the run's folder: ``output_dir``, else upstream's ``<log_dir>/<model>[_<task>]_<time>``."""
    if config.get("output_dir"):
        return Path(config["output_dir"])
    task = f"_{config['task_target']}" if config.get("task_target") else ""
    stamp = time_now or time.strftime("%Y-%m-%d-%H-%M-%S")
    return Path(config["log_dir"]) / f"{config['model_name']}{task}_{stamp}"
