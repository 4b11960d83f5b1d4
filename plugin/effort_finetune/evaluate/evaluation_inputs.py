"""What an evaluation opens before anything is scored, so that every user error is known first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.data.dataset_name import labels_of
from effort_finetune.data.folder_part import TrainedFolder
from effort_finetune.data.frames import FrameDataset
from effort_finetune.data.host_frames import open_split
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.preprocessing import obey
from effort_finetune.weights.loading import NEW_HEAD
from effort_finetune.weights.trained_on import told_by

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host


def open_datasets(
    host: Host,
    settings: Settings,
    names: Sequence[str],
    split: str,
    *,
    trained: Sequence[TrainedFolder] = (),
) -> dict[str, FrameDataset]:
    """Opens one split of every dataset, so that all user errors are known before the first is scored.

    Returns:
        The datasets by what they are called in results.

    Raises:
        UserErrors: One line for each dataset that cannot be opened.
    """
    if not names:
        raise UserError(f"--{split}_dataset", got="no names", expected="at least one dataset")
    opened: dict[str, FrameDataset] = {}
    errors: list[UserError] = []
    labels = labels_of(settings, names)
    for name in dict.fromkeys(names):
        try:
            opened[labels[name]] = open_split(host, settings, split=split, names=[name], trained=trained)
        except UserError as error:
            errors.extend(_flat(error))
    if errors:
        # A folder that is not there is one error, however many datasets should have been in it.
        raise UserErrors({str(error): error for error in errors}.values())
    return opened


def prepare(
    settings: Settings, host: Host, weights: Path | str | None, split: str = "test"
) -> tuple[Settings, dict[str, FrameDataset]]:
    """Finds every user error that can be found without reading the weights, and reports them together."""
    errors: list[UserError] = []
    datasets: dict[str, FrameDataset] = {}
    chosen = weights or settings.pretrained_weights
    if chosen is None:
        errors.append(UserError("--weights", got="no file", expected="a fine-tuned or released checkpoint"))
    elif not Path(chosen).expanduser().exists():
        errors.append(UserError("--weights", got=f"{chosen}, which does not exist", expected="a checkpoint"))
    else:
        try:
            settings = obey(settings.changed(pretrained_weights=str(Path(chosen).expanduser().resolve())))
        except UserError as error:
            errors.extend(_flat(error))
    told = told_by(chosen)
    trained = [TrainedFolder.of_record(entry) for entry in told.trained_on]
    try:
        names = settings.test_dataset if split == "test" else settings.val_dataset or ()
        datasets = open_datasets(host, settings, names, split, trained=trained)
    except UserError as error:
        errors.extend(_flat(error))
    if errors:
        raise UserErrors(errors) if len(errors) > 1 else errors[0]
    return settings, datasets


def build(settings: Settings) -> EffortFinetuneDetector:
    """Builds the detector from the checkpoint.

    Raises:
        UserError: If the checkpoint cannot be used, or has no trained head.
    """
    model = EffortFinetuneDetector(settings)
    assert model.load_report is not None, "it was built from a file"
    if NEW_HEAD in model.load_report.derived.values():
        raise UserError(
            f"--weights {settings.pretrained_weights}",
            got="a plain CLIP, whose head would be random",
            expected="a checkpoint with a trained head",
            next_step="fine-tune it first: effort-finetune finetune",
        )
    return model


def _flat(error: UserError) -> Sequence[UserError]:
    return error.errors if isinstance(error, UserErrors) else (error,)
