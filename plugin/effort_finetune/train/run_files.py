"""Where a run writes: its folder, its logs and the published checkpoint."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import atomic_write, ensure_writable_dir
from effort_finetune.data.dataset_name import labels_of, tag_of
from effort_finetune.evaluate.run_folder import MEASUREMENT_FILES, score_files, set_aside
from effort_finetune.train.run_log import LOG_NAME
from effort_finetune.weights.run_state import BEST_NAME, LAST_NAME, folder_of

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

RUN_FILES = (*MEASUREMENT_FILES, LOG_NAME, BEST_NAME, LAST_NAME, "events.out.tfevents.*")


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


def prepare_paths(settings: Settings, host: Host) -> RunPaths:
    """Chooses the run's files and proves that their folders can be written.

    The folder is ``output_dir``, else that of the run that is resumed, else a new
    ``<log_dir>/effort_finetune_<datasets>_<time>``; a run without ``output_dir`` also writes
    ``training/logs/finetuning.log`` of the host.

    Raises:
        UserError: If a folder cannot be written, or holds the weights that this run starts from under a
            name that this run writes.
    """
    shared_logs: list[Path] = []
    if settings.output_dir is not None:
        folder = Path(settings.output_dir)
    else:
        resumed = None if settings.resume is None else folder_of(settings.resume)
        folder = _new_folder(settings, host) if resumed is None else resumed
        shared_logs.append(host.resolve("training/logs") / LOG_NAME)
    published = published_path(settings)
    start = None if settings.resume else settings.pretrained_weights  # a resumed run does not read them
    if start and _is_in(folder, Path(start)) and Path(start).name in (BEST_NAME, LAST_NAME):
        raise UserError(
            "--output_dir",
            got=f"{folder}, the run folder that the pretrained_weights are in",
            expected="a folder of this run's own",
            next_step="choose another one with --output_dir, or go on with that run with --resume",
        )
    ensure_writable_dir(folder)
    for log in shared_logs:
        ensure_writable_dir(log.parent, what="folder of the host's log")
    if published is not None:
        ensure_writable_dir(published.parent, what="folder of save_to", flag="--save_to")
    return RunPaths(folder.resolve(), (folder / LOG_NAME, *shared_logs), published)


def set_aside_earlier(settings: Settings, paths: RunPaths) -> Path | None:
    """Moves what an earlier run left in the folder out of the way.

    A run that is resumed in its own folder keeps its state, log and curves; only what it had measured
    before, on test sets that this time may not be measured, is moved.

    Returns:
        Where it is now; ``None`` if there was nothing.
    """
    if not is_resumed_in(paths.folder, settings):
        return set_aside(paths.folder, RUN_FILES)
    return set_aside(paths.folder, MEASUREMENT_FILES) if any(score_files(paths.folder)) else None


def is_resumed_in(folder: Path, settings: Settings) -> bool:
    """Tells whether the run goes on in the folder that it was left in."""
    return settings.resume is not None and folder_of(settings.resume).resolve() == folder.resolve()


def dataset_tag(settings: Settings) -> str:
    """Returns the training datasets as part of a file name: ``uadfv_celeb-df-v2``, of many ``a+44``."""
    labels = labels_of(settings)
    return tag_of([labels[name] for name in settings.train_dataset])


def published_path(settings: Settings) -> Path | None:
    """Returns ``save_to`` with ``{train_dataset}`` filled in (lower case, joined by ``_``), absolute."""
    if settings.save_to is None:
        return None
    return Path(settings.save_to.replace("{train_dataset}", dataset_tag(settings))).resolve()


def publish(selected: Path, target: Path) -> Path:
    """Puts the selected checkpoint where the user wants it: a hard link if possible, else a copy."""

    def link_or_copy(temporary: Path) -> None:
        temporary.unlink()
        try:
            os.link(selected, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(selected, temporary)

    return atomic_write(target, link_or_copy)


def _is_in(folder: Path, path: Path) -> bool:
    return path.parent.resolve() == folder.resolve()


def _new_folder(settings: Settings, host: Host) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d-%H-%M-%S")
    name = f"effort_finetune_{dataset_tag(settings)[:80]}_{stamp}"
    folder = host.resolve(settings.log_dir) / name
    number = 2
    while folder.exists():  # two runs in one second
        folder = folder.with_name(f"{name}_{number}")
        number += 1
    return folder
