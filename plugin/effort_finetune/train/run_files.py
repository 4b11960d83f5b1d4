"""Where a run writes: its folder, its logs and the published checkpoint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import atomic_write, ensure_writable_dir, free_name, sha256_file
from effort_finetune.core.locks import hold
from effort_finetune.data.dataset_name import labels_of, tag_of
from effort_finetune.evaluate.run_folder import MEASUREMENT_FILES, archive, score_files
from effort_finetune.train.run_log import LOG_NAME, LOG_OF_PROCESS
from effort_finetune.train.trackers import TRACKER_FILES
from effort_finetune.weights.run_state import BEST_NAME, FROZEN_FILES, LAST_NAME, folder_of

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Job

STATE_FILES = (BEST_NAME, LAST_NAME, FROZEN_FILES)
RUN_FILES = (
    *(*MEASUREMENT_FILES, LOG_NAME, LOG_OF_PROCESS.format("*"), *STATE_FILES),
    *("events.out.tfevents.*", *TRACKER_FILES),
)


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The files of a run; ``published`` is ``None`` when ``save_to`` is."""

    folder: Path
    logs: tuple[Path, ...]
    published: Path | None

    @property
    def last(self) -> Path:
        """The state to go on from."""
        return self.folder / LAST_NAME

    @property
    def best(self) -> Path:
        """The selected weights."""
        return self.folder / BEST_NAME

    @property
    def results(self) -> Path:
        """The results document."""
        return self.folder / "results.json"

    @property
    def settings(self) -> Path:
        """The resolved settings."""
        return self.folder / "settings.yaml"


def choose_paths(job: Job) -> RunPaths:
    """Chooses the run's files; makes none.

    The folder is ``output_dir``, else that of the run that is resumed, else a new
    ``<log_dir>/effort_finetune_<datasets>_<time>``; a run without ``output_dir`` also writes
    ``training/logs/finetuning.log`` of the host.

    Raises:
        UserError: If the folder holds the weights that this run starts from under a name that this run
            writes, or ``save_to`` names a folder.
    """
    settings = job.settings
    shared_logs = [] if job.part is None else list(job.part.logs)
    if settings.output_dir is not None:
        folder = Path(settings.output_dir)
    else:
        resumed = None if settings.resume is None else folder_of(settings.resume)
        folder = _new_folder(job) if resumed is None else resumed
        shared_logs.append(job.host.resolve("training/logs") / LOG_NAME)
    published = published_path(settings)
    if published is not None and published.is_dir():
        raise UserError(
            "--save_to",
            got=f"{published}, which is a folder",
            expected="the name of a .pth file",
            next_step=f"--save_to {published / 'effort.pth'}",
        )
    start = None if settings.resume else settings.pretrained_weights  # a resumed run does not read them
    if start and Path(start).resolve() in {(folder / name).resolve() for name in (".", BEST_NAME, LAST_NAME)}:
        raise UserError(
            "--output_dir",
            got=f"{folder}, the run folder that the pretrained_weights are in",
            expected="a folder of this run's own",
            next_step="choose another one with --output_dir, or go on with that run with --resume",
        )
    return RunPaths(folder.resolve(), (folder / LOG_NAME, *shared_logs), published)


@contextmanager
def taken(job: Job, paths: RunPaths) -> Iterator[Path | None]:
    """Makes the run's folders, proves that they can be written, and holds the run folder for the context.

    What an earlier run of ours left in it is archived in it. A run that is resumed in its own folder keeps
    its state, log and curves; only what it had measured before, on test sets that this time may not be
    measured, is archived.

    Yields:
        Where earlier files are now; ``None`` if there were none.

    Raises:
        UserError: If a folder cannot be written, is in use, or holds files of somebody else under our names.
    """
    with hold(ensure_writable_dir(paths.folder)):
        for log in paths.logs[1:]:
            ensure_writable_dir(log.parent, what="folder of the host's log")
        if paths.published is not None:
            ensure_writable_dir(paths.published.parent, what="folder of save_to", flag="--save_to")
        resume = job.settings.resume
        if resume is None or folder_of(resume).resolve() != paths.folder:
            yield archive(paths.folder, RUN_FILES)
        else:
            yield archive(paths.folder, MEASUREMENT_FILES) if any(score_files(paths.folder)) else None


def dataset_tag(settings: Settings) -> str:
    """Returns the training datasets as part of a file name: ``uadfv_celeb-df-v2``, of many ``a+44``."""
    labels = labels_of(settings)
    return tag_of([labels[name] for name in settings.train_dataset])


def published_path(settings: Settings) -> Path | None:
    """Returns ``save_to`` with ``{train_dataset}`` filled in (lower case, joined by ``_``), absolute."""
    if settings.save_to is None:
        return None
    return Path(settings.save_to.replace("{train_dataset}", dataset_tag(settings))).resolve()


def publish(selected: Path, target: Path, *, sha256: str) -> Path | None:
    """Puts the selected checkpoint where the user wants it: a hard link if possible, else a copy.

    Args:
        selected: The checkpoint.
        target: Where it is to be. A file that is there is archived beside it, unless it is the same.
        sha256: What both have to be.

    Returns:
        Where the file that was there is now; ``None`` if there was none.

    Raises:
        RunFailure: If it cannot be written or is not what this run wrote.
    """
    try:
        archived = None
        if target.is_file() and sha256_file(target) != sha256:
            archived = free_name(target)
            _link_or_copy(target, archived)
        atomic_write(target, lambda temporary: _link_or_copy(selected, temporary))
    except OSError as error:
        raise RunFailure(f"{target} could not be written ({error}); the weights are {selected}") from error
    if sha256_file(target) != sha256:
        raise RunFailure(f"{target} is not what this run wrote: another process changed {selected}")
    return archived


def remove_state(folder: Path) -> None:
    """Removes weights and state of a run that was asked to leave none (``--no-save_ckpt``)."""
    for name in STATE_FILES:
        for path in folder.glob(name):
            path.unlink()


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _new_folder(job: Job) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    name = f"effort_finetune_{dataset_tag(job.settings)[:80]}_{stamp}"
    folder = job.host.resolve(job.settings.log_dir) / name
    number = 2
    while folder.exists():  # two runs in one second
        folder = folder.with_name(f"{name}_{number}")
        number += 1
    return folder
