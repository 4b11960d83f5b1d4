"""Evaluating a detector on datasets of a host, inside a training run or as a command of its own."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from effort_finetune.core import ranks
from effort_finetune.core.agreement import check_agreement
from effort_finetune.core.crop_recipe import recipes_in
from effort_finetune.core.device import choose_device
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.interrupt import Interrupted, InterruptGuard
from effort_finetune.core.launch import read_launch
from effort_finetune.core.precision import resolve_precision
from effort_finetune.data.frames import FrameDataset
from effort_finetune.evaluate import results, table
from effort_finetune.evaluate.dataset_block import measure
from effort_finetune.evaluate.dataset_results import DatasetResult, DatasetResults
from effort_finetune.evaluate.dataset_scores import score_dataset
from effort_finetune.evaluate.evaluation_inputs import build, open_datasets, prepare
from effort_finetune.evaluate.evaluation_log import evaluation_log
from effort_finetune.evaluate.evaluation_record import output_folder, reason_of, save
from effort_finetune.evaluate.kept_model import KeptModel
from effort_finetune.evaluate.protocol import data_lines, recipe_warnings
from effort_finetune.evaluate.robustness import add_robustness
from effort_finetune.evaluate.score_file import frames_digest
from effort_finetune.model.chosen_detector import ChosenDetector, build_host_detector, choose_detector
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights.stored_calibration import StoredCalibration, calibration_of

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

logger = logging.getLogger(__name__)


class EvaluationFailure(RunFailure):
    """An evaluation stopped part of the way.

    Attributes:
        results: The datasets done so far; one with too many missing frames is the last of them,
            with ``status: failed``.
    """

    def __init__(self, message: str, done: DatasetResults) -> None:
        super().__init__(message)
        self.results = done


def evaluate_model(
    model: nn.Module,
    host: Host,
    settings: Settings,
    names: Sequence[str],
    split: str = "test",
    *,
    datasets: Mapping[str, FrameDataset] | None = None,
    output_dir: Path | None = None,
    autocast: torch.dtype | str | None = "settings",
    bootstrap_samples: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> DatasetResults:
    """Scores a model that is already on its device and measures it, one dataset after the other.

    Args:
        model: A DeepfakeBench detector.
        host: The open host.
        settings: Resolved settings.
        names: Datasets, by their name in the host's index.
        split: ``test``, ``val`` or ``train``.
        datasets: What :func:`open_datasets` returned, to open them once for many evaluations.
        output_dir: Folder for ``scores/<dataset>.csv``; ``None`` writes none.
        autocast: Precision of the forward pass; ``"settings"`` asks the settings.
        bootstrap_samples: Resamples of the intervals; ``None`` asks the settings, 0 leaves them out.
        should_stop: Asked before each batch; true ends the evaluation.

    Raises:
        Interrupted: If ``should_stop`` said so.
        UserError: If a dataset cannot be opened.
        EvaluationFailure: If more frames are missing than ``max_missing_rate`` allows, or a dataset
            could not be scored.
    """
    opened = dict(datasets) if datasets is not None else open_datasets(host, settings, names, split)
    asked = resolve_precision(settings.precision, _device(model)).dtype
    dtype = asked if isinstance(autocast, str) else autocast
    samples = settings.bootstrap_samples if bootstrap_samples is None else bootstrap_samples
    chosen = {name: opened[name] for name in names}
    evaluated = _results(model, host, settings, chosen, split, dtype, samples, output_dir, should_stop)
    return DatasetResults({result.name: result for result in evaluated})


def evaluate(
    settings: Settings,
    host: Host,
    *,
    weights: Path | str | None,
    output_dir: Path | str,
    command: Sequence[str] = (),
    kept: KeptModel | None = None,
) -> Path:
    """Measures a checkpoint on ``settings.test_dataset`` and writes all there is to say about it.

    ``output_dir`` holds ``evaluation.log``, ``settings.yaml``, ``results.json``, ``scores/*.csv`` and
    ``report.html`` afterwards, those of an earlier run lie in a folder of their own; the table is printed.
    Under ``torchrun`` every process calls this, each scores its part of the frames, and the first one writes.

    Args:
        settings: Resolved settings.
        host: The open host.
        weights: Checkpoint of any known layout; ``None`` takes ``settings.pretrained_weights``.
        output_dir: The folder, created if needed.
        command: The command line, for the record.
        kept: Holds the model of an evaluation before this one, and this one's afterwards.

    Returns:
        Path of ``results.json``.

    Raises:
        UserError: If anything asked for is wrong; nothing has been scored then.
        RunFailure: If the evaluation stopped; the results of the datasets before it are written.
    """
    with ranks.joined(read_launch()) as ours, ours.answering():
        start = time.perf_counter()
        opened = _open(settings, host, weights, ours, kept or KeptModel())
        loading = time.perf_counter() - start
        done: dict[str, DatasetResult] = {}
        # Last, so that an evaluation that cannot start leaves no folder behind.
        with output_folder(output_dir) if ours.leads else nullcontext() as folder, evaluation_log(folder):
            logger.info("command: %s", " ".join([*command[:1], shlex.join(command[1:])]))
            if ours.size > 1:
                logger.info("%d processes, each scores its part of the frames", ours.size)
            for line in opened.lines():
                logger.info("%s", line)
            failure: str | None = None
            try:
                _score_all(opened, host, folder, done)
            except BaseException as error:  # whatever ends it: what there is gets its results file
                if folder is None:
                    raise
                failure = reason_of(error)
                logger.error("%s", failure)
            path = Path(output_dir) / "results.json"
            if folder is not None:
                document = results.build(
                    kind="evaluation",
                    settings=opened.settings,
                    host=host,
                    results=DatasetResults(done),
                    checkpoint={**opened.report.to_dict(), **opened.detector.to_dict()},
                    device=opened.device,
                    autocast=opened.autocast,
                    timings={"loading_s": loading, "total_s": time.perf_counter() - start},
                    command=command,
                    status="complete" if failure is None else "failed",
                    reason=failure,
                )
                path = save(
                    folder, opened.settings, document, {name: result.dataset for name, result in done.items()}
                )
        if failure is not None:
            raise RunFailure(f"{failure}; what there is: {path}")
        return path


@dataclass(frozen=True)
class _Opened:
    """What an evaluation scores, and with what."""

    settings: Settings
    detector: ChosenDetector
    model: nn.Module
    datasets: Mapping[str, FrameDataset]
    device: torch.device
    autocast: torch.dtype | None
    calibration: StoredCalibration | None

    @property
    def report(self) -> Any:
        return self.model.load_report

    def lines(self) -> list[str]:
        status = [self.model.status.line()] if isinstance(self.model, EffortFinetuneDetector) else []
        data = [line for dataset in self.datasets.values() for line in data_lines(dataset)]
        device = f"device: {self.device}, {self.autocast or 'float32'}"
        return [*self.detector.lines(), *self.report.lines(), *data, *status, device]


def _open(
    settings: Settings, host: Host, weights: Path | str | None, ours: ranks.Ranks, kept: KeptModel
) -> _Opened:
    """Opens weights and datasets.

    Raises:
        UserError: If anything asked for is wrong, or the processes would measure different things.
    """
    device = choose_device(ranks.device_of(settings.device, ours.launch))
    autocast = resolve_precision(settings.precision, device).dtype
    detector = choose_detector(settings, host, training=False)
    settings = settings.changed(model_name=detector.name)
    # A host's detector first: what it lacks is said before any data is read.
    foreign = None
    if not detector.is_ours and (weights or settings.pretrained_weights) is not None:
        own = settings
        foreign = kept.get(own, weights, lambda: build_host_detector(detector, own, host, weights))
    settings, datasets = prepare(settings, host, weights)
    model = (kept.get(settings, None, lambda: build(settings)) if foreign is None else foreign).to(device)
    calibration = calibration_of(model.load_report)
    opened = _Opened(settings, detector, model, datasets, device, autocast, calibration)
    if ours.size > 1:
        frames = {f"frames of {name}": frames_digest(data.rows) for name, data in datasets.items()}
        check_agreement(ours, settings.digest(), {"weights": opened.report.sha256, **frames})
    return opened


def _score_all(opened: _Opened, host: Host, folder: Path | None, done: dict[str, DatasetResult]) -> None:
    """Measures every dataset, and what corruptions do to it; ``done`` is filled as far as it goes."""
    model, settings, samples = opened.model, opened.settings, opened.settings.bootstrap_samples
    is_ours = isinstance(model, EffortFinetuneDetector)
    trained_crops = recipes_in(opened.report.statement.crop) if is_ours else ()
    with InterruptGuard() as guard:
        for result in _results(
            model,
            host,
            settings,
            opened.datasets,
            "test",
            opened.autocast,
            samples if folder is not None else 0,  # the first process says what it means
            folder,
            guard,
            opened.calibration,
        ):
            done[result.name] = result
            result.block["warnings"] += recipe_warnings(result.name, result.dataset, trained_crops)
            logger.info("%s: %s", result.name, table.summary_line(result.block))
        add_robustness(model, settings, done, autocast=opened.autocast, should_stop=guard)


def _results(
    model: nn.Module,
    host: Host,
    settings: Settings,
    datasets: Mapping[str, FrameDataset],
    split: str,
    autocast: torch.dtype | None,
    samples: int,
    output_dir: Path | None,
    should_stop: Callable[[], bool],
    calibration: StoredCalibration | None = None,
) -> Iterator[DatasetResult]:
    """Yields each dataset's result as soon as it is there."""
    done: dict[str, DatasetResult] = {}
    for name, dataset in datasets.items():
        try:
            start = time.perf_counter()
            scores = score_dataset(
                model, dataset, settings, autocast=autocast, desc=name, should_stop=should_stop
            )
            result = measure(
                host,
                settings,
                name,
                split,
                dataset,
                scores,
                bootstrap_samples=samples,
                seconds=time.perf_counter() - start,
                output_dir=output_dir,
                calibration=calibration,
            )
        except Exception as error:
            if should_stop():  # a loader's worker that Ctrl-C hit as it started is not the news
                raise Interrupted from error
            raise EvaluationFailure(
                f"evaluating {name} failed: {type(error).__name__}: {error}", DatasetResults(done)
            ) from error
        done[name] = result
        yield result
        if result.block["status"] == "failed":
            raise EvaluationFailure(result.block["reason"], DatasetResults(done))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
