"""What a run asks for and cannot have, all of it at once, before torch is imported and anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.config.resolve import OUR_NAMES
from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.core.torch_build import refuse_absent_device
from effort_finetune.data.dataset_name import check_names, folder_of
from effort_finetune.data.folder_division import read_folder
from effort_finetune.data.folder_options import FolderOptions
from effort_finetune.host.detector_files import HOSTS_PREFIX, check_needs
from effort_finetune.host.ours_alone import refuse_ours_alone
from effort_finetune.weights.first_look import look_at

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

TRAINING = ("train_dataset", "val_dataset", "test_dataset")


def refuse_missing(
    host: Host,
    settings: Settings,
    *,
    which: Sequence[str],
    weights: Iterable[Path | str | None] = (),
) -> list[str]:
    """Looks at the device, the detector, the weights files and the datasets that a run names.

    Args:
        host: The open host.
        settings: The run's settings.
        which: The settings whose datasets are read, the one that must name some first; training is asked
            for where ``train_dataset`` is one.
        weights: Files that are read; ``None`` stands for one that is not asked for.

    Returns:
        Notes worth a line: names that are a folder too.

    Raises:
        UserErrors: A line for each thing that is missing or cannot be used.
    """
    notes: list[str] = []
    errors = list(_errors(host, settings, which, weights, notes))
    if errors:
        raise UserErrors({str(error): error for error in errors}.values())
    return notes


def _errors(
    host: Host,
    settings: Settings,
    which: Sequence[str],
    weights: Iterable[Path | str | None],
    notes: list[str],
) -> Iterator[UserError]:
    try:
        refuse_absent_device(settings.device, settings.precision)
    except UserError as error:
        yield error
    name = settings.model_name
    if name not in OUR_NAMES:
        try:
            training = "train_dataset" in which
            check_needs(host, name.removeprefix(HOSTS_PREFIX), settings.to_dict(), training=training)
            refuse_ours_alone(settings, name.removeprefix(HOSTS_PREFIX))
        except UserError as error:
            yield error
    if settings.resume is not None and not Path(settings.resume).exists():
        yield UserError(
            "--resume",
            got=f"{settings.resume}, which does not exist",
            expected="a run folder or its ckpt_last.pth",
        )
    elif settings.resume is not None:
        weights = [settings.resume]  # it holds every weight; what the run began with may be gone
    for path in weights:
        try:
            if path is not None:
                look_at(path)
        except UserError as error:
            yield error
    if settings.resume is None and not getattr(settings, which[0]):
        yield UserError(f"--{which[0]}", got="no names", expected="at least one dataset")
    try:
        notes += check_names(host, settings, which=which)
        _read_folders(host, settings, which)
    except UserError as error:
        yield from getattr(error, "errors", (error,))


def _read_folders(host: Host, settings: Settings, which: Sequence[str]) -> None:
    """Lists every folder of a run, which is kept for when it is read.

    Raises:
        UserErrors: A line for each folder without pictures or without classes.
    """
    errors = []
    for name in dict.fromkeys(name for key in which for name in getattr(settings, key) or ()):
        try:
            folder = folder_of(host, settings, name)
            if folder is not None:
                read_folder(folder, FolderOptions.of(settings))
        except UserError as error:
            errors.append(error)
    if errors:
        raise UserErrors(errors)
