"""What the loaders of a host's script read, as the rows that results are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from effort_finetune.core.errors import UserError
from effort_finetune.data.collect import FrameRow
from effort_finetune.data.frames import GROUPING_FIX
from effort_finetune.data.host_frames import HostFrames
from effort_finetune.data.host_listing import plain
from effort_finetune.data.index import DatasetIndex, load_index, with_own_labels
from effort_finetune.data.listed_rows import described, listed_part, listed_protocol
from effort_finetune.train.data import RunData

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from effort_finetune.config import Settings
    from effort_finetune.host import Host

#: In every result: a host's class may put another frame in the place of one that it cannot read.
SUBSTITUTES = (
    "the frames come from the host's own loader: what it puts in the place of a frame that it cannot read is "
    "seen here only where it has another label"
)
_NO_LISTING = "the host's dataset names no frames under 'image' and 'label': they are not counted"
_ORDER = "as the host's own loader draws it"


def loader_frames(
    host: Host, settings: Settings, loader: DataLoader[Any], *, split: str, names: Sequence[str]
) -> HostFrames:
    """Describes what a host's loader reads.

    Args:
        host: The host.
        settings: Of the run.
        loader: Its dataset lists the frames in ``data_dict``.
        split: ``train`` or ``test``.
        names: The datasets that it reads.

    Returns:
        One row for each frame, in the order of the dataset; of a sample of several frames the first.
    """
    listing = _listing(loader.dataset)
    asked = settings.frame_num.test if split == "test" else settings.frame_num.train
    indexes = {name: _index(host, settings, name) for name in names}
    owner = {
        plain(path): name
        for name, index in indexes.items()
        for video in (() if index is None else index.videos(split))
        for path in video.frames
    }
    owners = [owner.get(plain(path), names[0]) for path, _ in listing]
    parts: dict[str, Any] = {}
    rows: dict[str, list[FrameRow]] = {}
    for name, index in indexes.items():
        own = settings if index is None else with_own_labels(settings, index)
        entries = [entry for entry, dataset in zip(listing, owners, strict=True) if dataset == name]
        part = listed_part(own, index, entries, split, asked, name=name)
        rows[name], parts[name] = part.rows, described(own, index, part, split, asked)
        parts[name]["warnings"] += [SUBSTITUTES] if listing else [_NO_LISTING]
    ordered = {name: iter(own_rows) for name, own_rows in rows.items()}
    together = [next(ordered[name]) for name in owners]
    class_name = type(loader.dataset).__name__
    protocol = listed_protocol(settings, split, class_name, together, parts, fixes=(GROUPING_FIX,))
    return HostFrames(host, settings, split, together, {}, protocol, asked)


def run_data(
    host: Host, settings: Settings, train: DataLoader[Any], tests: Mapping[str, DataLoader[Any]]
) -> RunData:
    """Describes all that a run reads through a host's loaders; the test sets choose, as in the host."""
    test = {
        name: loader_frames(host, settings, loader, split="test", names=[name])
        for name, loader in tests.items()
    }
    frames = loader_frames(host, settings, train, split="train", names=settings.train_dataset)
    return RunData(frames, train, test, test, order=_ORDER)


def _index(host: Host, settings: Settings, name: str) -> DatasetIndex | None:
    try:
        return load_index(host, settings, name)
    except UserError:  # the host's class may know a form that we do not
        return None


def _listing(dataset: Any) -> list[tuple[str, int]]:
    """Path and class of each sample; empty where a class of the host's keeps no such lists."""
    both = getattr(dataset, "data_dict", None)
    if not isinstance(both, Mapping):  # forks keep the lists alone
        both = {"image": getattr(dataset, "image_list", None), "label": getattr(dataset, "label_list", None)}
    paths, labels = both.get("image"), both.get("label")
    if not isinstance(paths, list | tuple) or not isinstance(labels, list | tuple):
        return []
    if len(paths) != len(labels):
        return []
    # A host's video datasets list several frames a sample; the first names the video.
    firsts = (path[0] if isinstance(path, list | tuple) else path for path in paths)
    return [(str(path), int(label)) for path, label in zip(firsts, labels, strict=True)]
