"""The data of a run, opened once, so that every user error is known before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from effort_finetune.core.errors import UserError, UserErrors
from effort_finetune.core.escaping import visible
from effort_finetune.data.dataset_name import check_names, folder_of, labels_of, tag_of
from effort_finetune.data.epoch_order import order_of
from effort_finetune.data.folder_division import read_folder
from effort_finetune.data.folder_options import FolderOptions
from effort_finetune.data.folder_part import TrainedFolder
from effort_finetune.data.frames import FrameDataset
from effort_finetune.data.host_frames import open_split
from effort_finetune.data.loader import EpochSampler, epoch_sampler, make_loader
from effort_finetune.data.self_blended_frames import with_self_blended
from effort_finetune.data.shared_pictures import TrainedPictures
from effort_finetune.evaluate.evaluation_inputs import open_datasets
from effort_finetune.evaluate.protocol import leakage_warnings
from effort_finetune.evaluate.score_file import frames_digest
from effort_finetune.weights.trained_on import told_by

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host


@dataclass(frozen=True)
class RunData:
    """What a run reads.

    Attributes:
        train: Frames of all training sets.
        loader: Their batches; no frame is left out, the last batch may be smaller.
        selection: Datasets whose metrics choose the checkpoint, by name; empty for ``last``.
        test: Test datasets, by name; may be empty.
        trained_on: What the weights will state of the data, that of the weights it starts from first.
        order: How the frames are drawn, where that is not the settings' to say.
    """

    train: FrameDataset
    loader: DataLoader[dict[str, Any]]
    selection: Mapping[str, FrameDataset]
    test: Mapping[str, FrameDataset]
    trained_on: tuple[dict[str, Any], ...] = ()
    order: str | None = None

    @cached_property
    def pictures(self) -> TrainedPictures:
        """The training pictures, to be found again in the other splits."""
        return TrainedPictures(self.train)

    @property
    def counts(self) -> tuple[int, int]:
        """Training frames that are real and fake."""
        fake = sum(row.label for row in self.train.rows)
        return len(self.train.rows) - fake, fake

    @property
    def sampling(self) -> dict[str, Any]:
        """How many frames of what an epoch takes; without units every frame comes once."""
        sampler = epoch_sampler(self.loader)
        units, hard = getattr(sampler, "units", None), getattr(sampler, "hard", None)
        return {
            "epoch": None if units is None else [unit.to_dict() for unit in units],
            "hard_examples": None if hard is None else hard.share,
        }

    def digests(self) -> dict[str, str]:
        """Returns which frames train and which choose the checkpoint, each as a hash by its name in words."""
        return {
            "training frames": frames_digest(self.train.rows),
            **{
                f"frames of {name}, which choose the checkpoint,": frames_digest(frames.rows)
                for name, frames in self.selection.items()
            },
        }


def open_data(settings: Settings, host: Host, *, pin_memory: bool) -> RunData:
    """Opens training, selection and test data.

    Raises:
        UserError: If a dataset cannot be opened, or there is nothing to choose the checkpoint on.
            A training set without val split is one: training frames cannot stand in for it, so
            the user names other data or chooses ``--select_on last``.
    """
    if not settings.train_dataset:
        raise UserError("--train_dataset", got="no names", expected="at least one dataset")
    check_names(host, settings, which=("train_dataset", "val_dataset", "test_dataset"))
    errors: list[UserError] = []
    train = test = selection = None
    try:
        train = open_split(host, settings, split="train", names=settings.train_dataset)
        train = with_self_blended(train, settings, host)
    except UserError as error:
        errors.append(error)
    told = told_by(settings.pretrained_weights)
    trained: list[TrainedFolder] = []
    try:
        trained = trained_folders(host, settings)
        earlier = [TrainedFolder.of_record(entry) for entry in told.trained_on]
        names = settings.test_dataset
        test = open_datasets(host, settings, names, "test", trained=[*trained, *earlier]) if names else {}
    except UserError as error:
        errors.append(error)
    if train is not None or settings.val_dataset is not None:
        try:
            selection = _open_selection(settings, host, test or {})
        except UserError as error:
            errors.append(error)
    if errors or train is None or test is None or selection is None:
        flat = [e for error in errors for e in getattr(error, "errors", (error,))]
        # What training and test data lack together is one error.
        raise UserErrors({str(error): error for error in flat}.values())
    loader = shuffled_loader(train, settings, pin_memory=pin_memory)
    own = [folder.record(settings.fit or "crop") for folder in trained]
    earlier_record = [
        dict(entry) for entry in told.trained_on if entry["name"] not in {o["name"] for o in own}
    ]
    data = RunData(train, loader, selection, test, (*earlier_record, *own))
    refuse_trained_pictures(settings, data)
    return data


def refuse_trained_pictures(settings: Settings, data: RunData) -> None:
    """Stops a run whose test data hold pictures that another dataset of it trains on.

    Raises:
        UserErrors: One line for each such test dataset; none with ``split: all``, where the results say it.
    """
    if settings.split == "all":
        return
    errors = []
    for name, frames in data.test.items():
        if shared := data.pictures.shared_with(frames):
            errors.append(
                UserError(
                    f"test data {visible(name)}",
                    got=f"{len(shared)} of {len(frames.rows)} pictures that are trained on, such as "
                    f"{' = '.join(map(visible, shared[0]))}",
                    expected="pictures that no training folder has",
                    next_step="take them out of one of the two, or score them all the same and have it said "
                    "in the results: --split all",
                )
            )
    if errors:
        raise UserErrors(errors) if len(errors) > 1 else errors[0]


def trained_folders(host: Host, settings: Settings) -> list[TrainedFolder]:
    """Returns what this run trains on of folders, as its weights will state it.

    Raises:
        UserError: A folder that cannot be read.
    """
    options, labels, chosen = FolderOptions.of(settings), labels_of(settings), selection_names(settings)
    found = []
    for name in settings.train_dataset:
        folder = folder_of(host, settings, name)
        if folder is not None:
            listing = read_folder(folder, options).sha256
            found.append(TrainedFolder(labels[name], listing, options.to_dict(), name in chosen))
    return found


def selection_names(settings: Settings) -> tuple[str, ...]:
    """Returns the datasets that choose the checkpoint."""
    if settings.select_on == "last":
        return ()
    if settings.select_on == "test":
        return settings.test_dataset
    return settings.train_dataset if settings.val_dataset is None else settings.val_dataset


def selection_warnings(settings: Settings, data: RunData) -> list[str]:
    """Returns what taints the choice of the checkpoint, e.g. validation videos that are trained on."""
    split = "test" if settings.select_on == "test" else "val"
    warnings: list[str] = []
    for name, frames in data.selection.items():
        warnings += [
            *leakage_warnings(frames, split),
            *training_warnings(name, frames, split, data),
        ]
    return warnings


def training_warnings(name: str, frames: FrameDataset, split: str, data: RunData) -> list[str]:
    """Returns a sentence if videos of a dataset are trained on under another dataset's name.

    Two indexes may list one crop, as FaceForensics++ and its subsets do; what a dataset's own splits share
    is said by :func:`effort_finetune.evaluate.protocol.leakage_warnings`. Sampling always takes a video's
    first frame, so no shared video is overlooked where both list all of its frames.

    Args:
        name: The dataset.
        frames: Its opened split.
        split: The split's name.
        data: The run's data.
    """
    train = data.train
    trained = {train.place(row) for row in train.rows if row.dataset != name}
    shared = {row.video for row in frames.rows if frames.place(row) in trained}
    told = []
    if copies := data.pictures.shared_with(frames):
        told.append(
            f"{len(copies)} of {len(frames.rows)} {split} pictures of {name} are those of another folder "
            f"trained on, such as {' = '.join(map(visible, copies[0]))}: the numbers hold training data"
        )
    if not shared:
        return told
    videos = len({row.video for row in frames.rows})
    return [
        *told,
        f"{len(shared)} of {videos} {split} videos of {name} are trained on under another dataset's name: "
        "the numbers hold training data",
    ]


def _open_selection(
    settings: Settings, host: Host, test: Mapping[str, FrameDataset]
) -> Mapping[str, FrameDataset]:
    if settings.select_on == "last":
        if settings.early_stopping.patience is not None:
            raise UserError(
                "early_stopping.patience",
                got="select_on 'last', which measures nothing between epochs",
                expected="select_on 'val'",
                next_step="--select_on val, or early_stopping.patience null",
            )
        return {}
    if settings.select_on == "test":
        if not settings.test_dataset:
            raise UserError(
                "select_on 'test'", got="no test_dataset", expected="one", next_step="--test_dataset NAME"
            )
        return test
    try:
        return _open_val(host, settings, selection_names(settings))
    except UserError as error:
        raise UserErrors([_with_way_out(e) for e in getattr(error, "errors", (error,))]) from error


def _open_val(host: Host, settings: Settings, names: Sequence[str]) -> Mapping[str, FrameDataset]:
    """Opens validation data: each dataset of the index, and all folders as one.

    A folder may hold one class, or a handful of pictures of one generator: no metric of its own.
    """
    folders = [name for name in names if folder_of(host, settings, name) is not None]
    listed = [name for name in names if name not in folders]
    opened = open_datasets(host, settings, listed, "val") if listed else {}
    if folders:
        labels = labels_of(settings)
        opened[tag_of([labels[name] for name in folders])] = open_split(
            host, settings, split="val", names=folders
        )
    return opened


def _with_way_out(error: UserError) -> UserError:
    way_out = "or choose the checkpoint without a val split: --val_dataset NAME or --select_on last"
    step = f"{error.next_step}, {way_out}" if error.next_step else way_out.removeprefix("or ")
    return UserError(f"validation data: {error.what}", got=error.got, expected=error.expected, next_step=step)


def shuffled_loader(frames: FrameDataset, settings: Settings, *, pin_memory: bool = False) -> DataLoader[Any]:
    """Returns the loader that a run with these settings trains on.

    Raises:
        UserError: If its order is asked for by names that the frames have not.
    """
    units, hard = order_of(frames, settings)
    return make_loader(
        frames,
        batch_size=settings.train_batchSize,
        workers=settings.workers,
        seed=settings.manualSeed,
        sampler=EpochSampler(frames, seed=settings.manualSeed, units=units, hard=hard),
        pin_memory=pin_memory,
    )
