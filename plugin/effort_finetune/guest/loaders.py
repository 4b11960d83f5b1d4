"""Our frames as the loaders a host's own ``train.py`` and ``test.py`` loop over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.data.frames import GROUPING_FIX, FrameDataset, open_frames
from effort_finetune.data.loader import make_loader
from effort_finetune.evaluate.evaluation import open_datasets
from effort_finetune.train.data import shuffled_loader

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host


class HostLoader:
    """Batches for a host's loop, which knows neither missing frames nor our rows.

    Args:
        loader: Of our frames.
        allowed: Share of frames that may be missing. A host's own loop pairs scores with frame names by
            position, so it needs 0.

    Attributes:
        dataset: The frames; ``data_dict`` lists their paths and labels, as a host's dataset does.
        protocol: How the frames were chosen, for results by the host's metrics.
        sampler: Of the loader; ``sampler.set_epoch(n)`` chooses the epoch's order and augmentation.
    """

    def __init__(self, loader: DataLoader[dict[str, Any]], *, allowed: float) -> None:
        self._loader = loader
        self._allowed = allowed
        self.dataset: FrameDataset = loader.dataset  # type: ignore[assignment]
        rows = self.dataset.rows
        self.dataset.data_dict = {  # type: ignore[attr-defined]
            "image": [row.path for row in rows],
            "label": [row.label for row in rows],
        }
        fixes = [fix for fix in self.dataset.protocol["fixes"] if fix != GROUPING_FIX]
        self.protocol: Mapping[str, Any] = {**self.dataset.protocol, "fixes": fixes}
        self.sampler = loader.sampler

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        missing: list[int] = []
        for batch in self._loader:
            missing += batch["missing"].tolist()
            if len(missing) > self._allowed * len(self.dataset):
                first = self.dataset.rows[missing[0]].path
                raise RunFailure(
                    f"{len(missing)} frames could not be read, more than {self._allowed:.2%} of "
                    f"{len(self.dataset)}; first {first}; next: effort-finetune check-data, or raise "
                    "max_missing_rate"
                )
            if len(batch["label"]):
                yield batch


def training_loader(host: Host, settings: Settings, *, allowed: float) -> HostLoader:
    """Opens the training frames of all datasets, shuffled anew each epoch.

    Raises:
        UserError: If a dataset cannot be opened.
    """
    if not settings.train_dataset:
        raise UserError("--train_dataset", got="no names", expected="at least one dataset")
    frames = open_frames(host, settings, split="train", names=settings.train_dataset)
    return HostLoader(shuffled_loader(frames, settings), allowed=allowed)


def testing_loaders(
    host: Host, settings: Settings, split: str, names: Sequence[str], *, allowed: float
) -> dict[str, HostLoader]:
    """Opens one split of every dataset, a loader each, in the order of the index.

    Raises:
        UserError: If a dataset cannot be opened; all of them at once.
    """
    return {
        name: HostLoader(
            make_loader(
                dataset,
                batch_size=settings.test_batchSize,
                workers=settings.workers,
                seed=settings.manualSeed,
            ),
            allowed=allowed,
        )
        for name, dataset in open_datasets(host, settings, names, split).items()
    }
