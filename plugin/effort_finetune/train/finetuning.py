"""The recipe of fine-tuning, top to bottom: set up, train, select, evaluate, write, publish.

effort-finetune finetune --train_dataset UADFV --test_dataset UADFV --pretrained_weights effort.pth
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from effort_finetune.core import ranks
from effort_finetune.core.crop_recipe import recipes_in, stated
from effort_finetune.core.errors import RunFailure
from effort_finetune.core.files import mark_of, sha256_stream
from effort_finetune.core.interrupt import InterruptGuard
from effort_finetune.core.launch import read_launch
from effort_finetune.core.ranks import PeerGone, joined
from effort_finetune.evaluate.dataset_results import DatasetResult, DatasetResults
from effort_finetune.evaluate.evaluation import EvaluationFailure, evaluate_model
from effort_finetune.evaluate.protocol import recipe_warnings
from effort_finetune.host.job import Job
from effort_finetune.model import low_rank
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.train.data import training_warnings
from effort_finetune.train.failures import failure_of
from effort_finetune.train.outcome import Outcome
from effort_finetune.train.reports import Reports
from effort_finetune.train.run_files import publish, remove_state, taken
from effort_finetune.train.run_log import FILES_ONLY, run_logger
from effort_finetune.train.run_record import log_data, log_outcome, write_results, write_settings
from effort_finetune.train.run_stages import run_stages
from effort_finetune.train.setup import Prepared, attach_reports, prepare
from effort_finetune.train.standing_in import stand_in
from effort_finetune.train.trackers import Trackers, require_trackers
from effort_finetune.train.validation import numbers_of
from effort_finetune.weights.run_state import BEST_NAME

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host
    from effort_finetune.train.engine import Engine


def finetune(settings: Settings, host: Host, *, command: Sequence[str] = ()) -> Outcome:
    """Fine-tunes a detector as the settings say and measures the selected checkpoint.

    Under ``torchrun`` every process calls this, and all of them make one run, which the first one writes.

    Args:
        settings: Resolved settings.
        host: The host that owns the data.
        command: The command line as typed, for results and the line that resumes.

    Returns:
        Where everything is.

    Raises:
        UserError: If the run cannot start; it has written nothing then.
        RunFailure: If it could not finish for whatever reason, or was interrupted; ``ckpt_last.pth`` and a
            results file with status ``failed`` hold what there is.
    """
    require_trackers(settings)
    job = Job(settings, host, tuple(command))
    with joined(read_launch()) as ours, ours.answering():
        return run_stages(job, _run) if settings.stages else _run(job)


def _run(job: Job) -> Outcome:
    """Makes one run from its first step to its last, a stage of one included."""
    started, guard = time.perf_counter(), InterruptGuard()
    prepared = prepare(job, guard, started=started)
    job, settings = prepared.job, prepared.job.settings  # with what the weights state
    paths, engine, ours = prepared.paths, prepared.engine, ranks.current()
    before = mark_of(paths.results)
    with ExitStack() as held:
        archived = held.enter_context(taken(job, paths)) if ours.leads else None
        if ours.leads:  # first: they tell whose the other files are, also those that a full disk cut off
            write_settings(paths.settings, settings if job.part is None else job.part.whole)
        ours.exchange("the run folder is taken")
        held.enter_context(guard)
        logger = held.enter_context(run_logger(paths.logs, ours))
        board = None
        if ours.leads:
            board = held.enter_context(Trackers(paths.folder, settings, first_step=prepared.first_step))
        tested: dict[str, DatasetResult] = {}
        timings: dict[str, float] = {}
        published, failure = None, None
        try:
            logger.info("command: %s", job.command_line())
            if archived is not None:
                logger.warning("what an earlier run left in %s is now in %s", paths.folder, archived)
            attach_reports(prepared, Reports(logger, board, prepared.device))
            if ours.leads:
                engine.write_frozen()
            log_data(logger, prepared.data, settings)
            prepared.plan_memory()
            timings["setup_s"] = time.perf_counter() - started
            engine.run(prepared.data.loader, lambda: prepared.compute_features(guard))
            _test_selected(prepared, guard, tested, timings)
            published = publish_selected(prepared) if ours.leads else None
        except BaseException as error:
            if isinstance(error, PeerGone):
                stand_in(ours, engine, held, before=before)
            failure = failure_of(error, engine)
            if not isinstance(error, (RunFailure, KeyboardInterrupt)):
                logger.error("the run broke off", exc_info=error, extra=FILES_ONLY)
            failure.__cause__ = error
        timings |= {"process_s": time.perf_counter() - started, "total_s": engine.processes.seconds()}
        document = None
        try:
            if ours.leads:
                document = write_results(
                    prepared,
                    tested=DatasetResults(tested),
                    failure=failure,
                    published=published,
                    timings=timings,
                )
        except Exception as error:
            unwritten = f"{paths.results} could not be written ({error})"
            failure = RunFailure(f"{failure}; {unwritten}" if failure else unwritten)
        if failure is not None:
            logger.error("%s", failure, extra=FILES_ONLY)
            try:
                raise failure
            finally:
                failure = None  # its traceback refers to this frame: a cycle that would keep the model
        if document is not None:
            log_outcome(logger, paths, document)
            if not settings.save_ckpt:
                remove_state(paths.folder)
    return Outcome(paths.folder, paths.results, paths.best, paths.last, published)


def _test_selected(
    prepared: Prepared, guard: InterruptGuard, tested: dict[str, DatasetResult], timings: dict[str, float]
) -> None:
    """Measures the selected checkpoint, read back from its file, on the test datasets.

    Args:
        prepared: The run.
        guard: Asked whether to stop.
        tested: Filled with the results, as far as they go.
        timings: Gets the seconds it took.

    Raises:
        RunFailure: If the file is not the one that this run wrote, or a dataset cannot be measured.
    """
    settings, data, engine = prepared.job.settings, prepared.data, prepared.engine
    if not data.test:
        return
    ours = ranks.current()
    if isinstance(prepared.model, EffortFinetuneDetector):
        low_rank.unwrap(prepared.model.backbone)  # in every process; what LoRA learned is merged in the file
    if ours.leads:
        prepared.model.load_state_dict(read_back(engine))
    ours.same_weights(prepared.model)
    started = time.perf_counter()
    try:
        results = evaluate_model(
            prepared.model,
            prepared.job.host,
            settings,
            tuple(data.test),
            "test",
            datasets=data.test,
            output_dir=prepared.paths.folder if ours.leads else None,
            bootstrap_samples=None if ours.leads else 0,  # the first process says what it means
            autocast=prepared.precision.dtype,
            should_stop=guard,
        )
    except EvaluationFailure as error:
        tested.update(error.results.datasets)
        raise
    tested.update(results.datasets)
    trained_crops = recipes_in(stated(data.train.recipes()))
    for name, result in tested.items():
        result.block["warnings"] += training_warnings(name, result.dataset, "test", data)
        result.block["warnings"] += recipe_warnings(name, result.dataset, trained_crops)
        if settings.select_on == "test":
            result.block["warnings"].append("an oracle: the labels of the test sets chose the checkpoint")
        engine.reports.curves("test", name, numbers_of(result), engine.steps_done(len(data.loader)))
    timings["test_s"] = time.perf_counter() - started


def read_back(engine: Engine) -> Any:
    """Reads ``ckpt_best.pth``, and proves in the same pass that it is what this run wrote.

    Raises:
        RunFailure: If it is not.
    """
    path = engine.folder / BEST_NAME
    with path.open("rb") as stream:
        if sha256_stream(stream) != engine.best_sha256:
            raise RunFailure(f"{path} is not what this run wrote: another process changed it")
        stream.seek(0)
        return torch.load(stream, map_location=engine.loop.device, weights_only=True)


def publish_selected(prepared: Prepared) -> Path | None:
    """Puts the selected checkpoint at ``save_to``; what was there is archived.

    Raises:
        RunFailure: If it cannot be written.
    """
    target, engine = prepared.paths.published, prepared.engine
    if target is None or not prepared.job.settings.save_ckpt:
        return None
    assert engine.best_sha256 is not None, "a run publishes what it has written"
    archived = publish(prepared.paths.best, target, sha256=engine.best_sha256)
    if archived is not None:
        engine.reports.warn(f"what was in {target} is now in {archived}")
    return target
