"""The recipe of fine-tuning, top to bottom: set up, train, select, evaluate, write, publish.

effort-finetune finetune --train_dataset UADFV --test_dataset UADFV --pretrained_weights effort.pth
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.interrupt import InterruptGuard
from effort_finetune.evaluate.dataset_results import DatasetResults
from effort_finetune.evaluate.evaluation import EvaluationFailure, evaluate_model
from effort_finetune.train.data import training_warnings
from effort_finetune.train.run_files import RunPaths, publish, set_aside_earlier
from effort_finetune.train.run_log import FILES_ONLY, run_logger
from effort_finetune.train.run_record import log_data, log_outcome, write_results, write_settings
from effort_finetune.train.session import Session
from effort_finetune.train.setup import Prepared, build_session, prepare
from effort_finetune.train.tensorboard import RunBoard

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run left: all paths are absolute; ``published_path`` may be ``None``."""

    run_dir: Path
    results_path: Path
    best_path: Path
    last_path: Path
    published_path: Path | None


def finetune(settings: Settings, host: Host, *, command: Sequence[str]) -> Outcome:
    """Fine-tunes a detector as the settings say and measures the selected checkpoint.

    Args:
        settings: Resolved settings.
        host: The host that owns the data.
        command: The command line as typed, for results and the line that resumes.

    Returns:
        Where everything is.

    Raises:
        UserError: If the run cannot start; it has written nothing then, or, where a resumed state
            does not fit its model, no more than its log.
        RunFailure: If it could not finish or was interrupted; ``ckpt_last.pth`` and a results file
            with status ``failed`` hold what there is.
    """
    started = time.perf_counter()
    prepared = prepare(settings, host)
    paths, guard = prepared.paths, InterruptGuard()
    aside = set_aside_earlier(settings, paths)
    with (
        run_logger(paths.logs) as logger,
        RunBoard(paths.folder, first_step=prepared.first_step) as board,
        _last_words(logger),
    ):
        logger.info("command: %s", _shell(command))
        if aside is not None:
            logger.warning("what an earlier run left in %s is now in %s", paths.folder, aside)
        session = build_session(
            settings, host, prepared, logger=logger, guard=guard, board=board, started=started
        )
        write_settings(paths.settings, settings)
        log_data(logger, prepared.data, settings)
        timings = {"setup_s": time.perf_counter() - started}
        tested, failure = DatasetResults({}), None
        try:
            with guard:
                session.run()
                tested = _test_selected(session, prepared, host, timings, guard)
        except KeyboardInterrupt:
            failure = RunFailure(_interrupted(command, session))
        except EvaluationFailure as error:
            tested, failure = error.results, error
        except RunFailure as error:
            failure = error
        if failure is None:
            failure = _publish(paths)
        timings["process_s"] = time.perf_counter() - started
        timings["total_s"] = session.processes.seconds()
        document = write_results(
            session,
            prepared,
            host,
            tested=tested,
            failure=None if failure is None else str(failure),
            timings=timings,
            command=command,
        )
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None  # its traceback refers to this frame: a cycle that would keep the model
        log_outcome(logger, paths, document)
    return Outcome(paths.folder, paths.results, paths.best, paths.last, paths.published)


@contextmanager
def _last_words(logger: logging.Logger) -> Iterator[None]:
    """Writes what ends a run into its log files; the terminal gets it from the command."""
    try:
        yield
    except (UserError, RunFailure) as error:
        logger.error("%s", error, extra=FILES_ONLY)
        raise
    except BaseException:
        logger.exception("the run broke off", extra=FILES_ONLY)
        raise


def _test_selected(
    session: Session, prepared: Prepared, host: Host, timings: dict[str, float], guard: InterruptGuard
) -> DatasetResults:
    """Measures the selected checkpoint, read back from its file, on the test datasets."""
    if not prepared.data.test:
        return DatasetResults({})
    state = torch.load(session.paths.best, map_location=prepared.device, weights_only=True)
    session.model.load_state_dict(state)
    started = time.perf_counter()
    tested = evaluate_model(
        session.model,
        host,
        session.settings,
        tuple(prepared.data.test),
        "test",
        datasets=prepared.data.test,
        output_dir=session.paths.folder,
        autocast=prepared.precision.dtype,
        should_stop=guard,
    )
    for name, result in tested.datasets.items():
        result.block["warnings"] += training_warnings(name, result.dataset, "test", session.data.train)
        if session.settings.select_on == "test":
            result.block["warnings"].append("an oracle: the labels of the test sets chose the checkpoint")
    timings["test_s"] = time.perf_counter() - started
    return tested


def _publish(paths: RunPaths) -> RunFailure | None:
    """Puts the selected checkpoint at ``save_to``; returns why it is not there."""
    if paths.published is None:
        return None
    try:
        publish(paths.best, paths.published)
    except OSError as error:
        return RunFailure(f"{paths.published} could not be written ({error}); the weights are {paths.best}")
    return None


def _interrupted(command: Sequence[str], session: Session) -> str:
    last = session.paths.last
    state = str(last) if last in session.written else session.settings.resume
    if state is None:
        return "interrupted before there was anything to save"
    words = list(command)
    if "--resume" in words:
        at = words.index("--resume")
        del words[at : at + 2]
    return f"interrupted; go on with: {_shell([*words, '--resume', state])}"


def _shell(command: Sequence[str]) -> str:
    program, *arguments = command  # the program may be two words, "effort-finetune finetune"
    return f"{program} {shlex.join(arguments)}".rstrip()
