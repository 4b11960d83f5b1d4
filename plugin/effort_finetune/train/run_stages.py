"""Stages: runs one after the other, each from the weights that the one before it selected.

A stage is an ordinary run, so that the stages of one YAML are, to the bit, the same runs typed by hand with
``--pretrained_weights``. The earlier ones lie in ``stage_<n>`` of the run folder, the last one in it.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.core import ranks
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import ensure_writable_dir
from effort_finetune.core.locks import hold
from effort_finetune.evaluate import results as results_file
from effort_finetune.evaluate.run_folder import archive
from effort_finetune.host.job import Job, Part
from effort_finetune.model import low_rank
from effort_finetune.model.chosen_detector import choose_detector
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.preprocessing import obey
from effort_finetune.model.trainable import configure_trainable
from effort_finetune.train.outcome import Outcome
from effort_finetune.train.resuming import check_settings
from effort_finetune.train.run_files import RUN_FILES, RunPaths, choose_paths, remove_state
from effort_finetune.train.schedule import check_schedule
from effort_finetune.weights.run_state import BEST_NAME, FROZEN_FILES, LAST_NAME, folder_of

if TYPE_CHECKING:
    from effort_finetune.config import Settings


def run_stages(job: Job, run: Callable[[Job], Outcome]) -> Outcome:
    """Runs every stage that is not done yet.

    Args:
        job: Of the whole run; ``settings.stages`` is not empty, ``settings.resume`` may name its folder.
        run: Makes one run.

    Returns:
        What the last stage left, which is what the whole run leaves.

    Raises:
        UserError: If a stage cannot start; before the first one where its settings tell.
        RunFailure: If a stage could not finish; the line that goes on names the whole run's folder.
    """
    stages = job.settings.by_stage()
    for number, settings in enumerate(stages, 1):
        with _named(number):
            check_schedule(settings)
    if job.settings.resume is None and choose_detector(stages[0], job.host, training=True).is_ours:
        _check_trained(stages)
    ours = ranks.current()
    paths = _whole_paths(job)
    paths = replace(paths, folder=Path(ours.first(str(paths.folder))))
    with hold(ensure_writable_dir(paths.folder)) if ours.leads else nullcontext():
        if job.settings.resume is None and ours.leads:
            archive(paths.folder, RUN_FILES)
            _archive_stages(paths.folder)
        ours.exchange("earlier files are archived")
        earlier: list[Mapping[str, Any]] = []
        weights = job.settings.pretrained_weights
        for number, settings in enumerate(stages, 1):
            is_last = number == len(stages)
            folder = paths.folder if is_last else paths.folder / f"stage_{number}"
            part = Part(number, job.settings, paths.folder, paths.logs[1:], tuple(earlier))
            changes: dict[str, Any] = {"pretrained_weights": weights, "output_dir": str(folder)}
            if not is_last:
                changes |= {"save_to": None, "save_ckpt": True}
                if settings.select_on != "test":  # an oracle chooses by them in each stage
                    changes["test_dataset"] = ()
            changes["resume"] = str(folder) if (folder / LAST_NAME).is_file() else None
            stage = replace(job, settings=settings.changed(**changes), part=part)
            if is_last:
                outcome = _run_one(stage, run, paths)
                if ours.leads and not job.settings.save_ckpt:
                    for earlier_stage in earlier:
                        remove_state(Path(earlier_stage["folder"]))
                return outcome
            if not _is_done(folder, stage):
                _run_one(stage, run, paths)
            ours.exchange("the stage is written")
            document = results_file.read(folder)
            earlier.append(stage_record(number, folder, document))
            weights = str(folder / BEST_NAME)
            if ours.leads:
                _drop_state(folder)
    raise AssertionError("a run with stages has a last one")


def stage_record(number: int, folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the results of the whole run say of an earlier stage."""
    training, settings = document["training"], document["settings"]
    return {
        "stage": number,
        "folder": str(folder),
        "checkpoint": document["checkpoint"],
        "settings_digest": document["settings_digest"],
        "optimizer": settings["optimizer"],
        **{key: training[key] for key in ("epochs", "start", "history", "selection", "trainable", "data")},
    }


def _check_trained(stages: Sequence[Settings]) -> None:
    """Refuses what a later stage would only find out late: patterns and ranges that the tower lacks."""
    if not any(stage.unfreeze or stage.layer_range for stage in stages[1:]):
        return
    first = obey(stages[0].changed(tune_mode="head", unfreeze=()))
    tower = EffortFinetuneDetector(first).to("meta")
    for number, settings in enumerate(stages, 1):
        trial = copy.deepcopy(tower)
        with _named(number):
            if settings.tune_mode in low_rank.MODES:
                low_rank.wrap(trial.backbone, settings)
            configure_trainable(trial, settings)


@contextmanager
def _named(number: int) -> Iterator[None]:
    """Inside: a user error names the stage."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"stage {number}: {error.what}", got=error.got, expected=error.expected, next_step=error.next_step
        ) from error


def _whole_paths(job: Job) -> RunPaths:
    paths = choose_paths(job)
    if job.settings.resume is None:
        return paths
    folder = folder_of(job.settings.resume).resolve()
    if not (folder / LAST_NAME).is_file() and not any(folder.glob("stage_*/results.json")):
        raise UserError(
            "--resume",
            got=f"{folder}, which holds no stage of a run",
            expected="the folder of a run with stages",
        )
    if job.settings.output_dir is not None and paths.folder != folder:
        raise UserError(
            "--output_dir",
            got=f"{paths.folder} for the stages of {folder}",
            expected="the folder that holds the stages",
            next_step="leave --output_dir out",
        )
    return replace(paths, folder=folder)


def _is_done(folder: Path, stage: Job) -> bool:
    """Tells whether a stage was finished before, under the settings that it has now."""
    if not (folder / "results.json").is_file() or not (folder / BEST_NAME).is_file():
        return False
    document = results_file.read(folder)
    if document["status"] != "complete":
        return False
    then = document["settings"]
    check_settings(then, obey(stage.settings, earlier=then).to_dict())
    if then["nEpochs"] != stage.settings.nEpochs:
        raise UserError(
            "--resume",
            got=f"nEpochs {stage.settings.nEpochs} of {folder.name}, which is finished",
            expected=f"{then['nEpochs']}",
            next_step="drop the change, or start a new run",
        )
    return True


def _run_one(stage: Job, run: Callable[[Job], Outcome], paths: RunPaths) -> Outcome:
    try:
        return run(stage)
    except RunFailure as error:
        assert stage.part is not None
        own = Path(str(stage.settings.output_dir)) / "results.json"
        if own.is_file() and own != paths.results and ranks.current().leads:
            shutil.copyfile(own, paths.results)  # a run says what became of it where it is looked for
        raise RunFailure(f"stage {stage.part.number}: {error}") from error


def _drop_state(folder: Path) -> None:
    """Removes what only a continuation of a stage needs, once it is finished: its weights stay."""
    for path in (folder / LAST_NAME, *folder.glob(FROZEN_FILES)):
        path.unlink(missing_ok=True)


def _archive_stages(folder: Path) -> None:
    for stage in sorted(folder.glob("stage_*")):
        if stage.is_dir():
            archive(stage, RUN_FILES)
