"""The rows of a listing that a host's dataset class made, each with the video that the index lists it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError
from effort_finetune.data.collect import Collected, FrameRow, collect_rows
from effort_finetune.data.host_listing import EQUAL, plain
from effort_finetune.data.index import DatasetIndex, Video
from effort_finetune.data.overlap import split_overlap
from effort_finetune.data.source_container import sources_of_test

if TYPE_CHECKING:
    from effort_finetune.config import Settings

HOSTS_OWN = "the host's own"


def listed_part(
    settings: Settings,
    index: DatasetIndex | None,
    listing: Sequence[tuple[str, int]],
    split: str,
    asked: int,
    *,
    name: str = "",
) -> Collected:
    """Returns the rows of one dataset's listing, in its order.

    Args:
        settings: ``label_dict`` names the classes.
        index: The dataset's index; ``None`` where there is none that we can read, and a frame's folder then
            stands for its video.
        listing: Path as the class lists it, and its class of ``label_dict``.
        split: ``train``, ``val`` or ``test``.
        asked: Frames asked for per video.
        name: The dataset, where there is no index.
    """
    name = name if index is None else index.name
    videos = [] if index is None else [item for item in index.walk(split) if isinstance(item, Video)]
    owner: dict[str, Video] = {}
    for video in videos:
        for path in video.frames:
            owner.setdefault(plain(path), video)
    names = {value: key for key, value in reversed(list(settings.label_dict.items()))}
    rows = []
    for path, number in listing:
        own = owner.get(plain(path))
        folder = plain(path).rpartition("/")[0]
        rows.append(
            FrameRow(
                name,
                path,
                int(number > 0),
                number,
                names.get(number, str(number)) if own is None else own.label_name,
                f"{name}/{folder}" if own is None else own.id,
                split,
            )
        )
    frames: dict[str, int] = {}
    for row in rows:
        frames[row.video] = frames.get(row.video, 0) + 1
    empty = [video.id for video in videos if video.id not in frames]
    groups = {} if index is None else index.groups
    lacking = [group for group, splits in groups.items() if split not in splits]
    shorter = sum(number < asked for number in frames.values())
    return Collected(rows, len(owner) or len(rows), len(frames), shorter, empty, lacking)


def described(
    settings: Settings, index: DatasetIndex | None, part: Collected, split: str, asked: int
) -> dict[str, Any]:
    """Returns what a result's protocol says of one dataset, JSON types only."""
    recipe = None if index is None else index.recipe
    known = None if index is None else sources_of_test(index, part.rows, split, seed=settings.manualSeed)
    sources, told = known or ({}, ())
    return {
        **part.facts(),
        "path_rule": HOSTS_OWN,
        "also_in": {} if index is None else split_overlap(index, split),
        "host_listing": "not comparable: its index cannot be read"
        if index is None
        else _compared(settings, index, part.rows, split, asked),
        "fit": None,
        "crop_recipe": None if recipe is None else recipe.to_dict(),
        "warnings": [*part.remarks(split), *told],
        **sources,
    }


def listed_protocol(
    settings: Settings,
    split: str,
    class_name: str,
    rows: Sequence[FrameRow],
    parts: Mapping[str, Any],
    *,
    fixes: Sequence[str],
) -> dict[str, Any]:
    """Returns the protocol of frames that a host's dataset class reads, JSON types only."""
    augmented = split == "train" and settings.use_data_augmentation
    return {
        "split": split,
        "loader": "host",
        "dataset_class": class_name,
        "frames_asked": settings.frame_num.test if split == "test" else settings.frame_num.train,
        "sampling": HOSTS_OWN,
        "source": "lmdb" if settings.lmdb else "files",
        "compression": settings.compression,
        "interpolation": HOSTS_OWN,
        "resolution": settings.resolution,
        "mean": list(settings.mean),
        "std": list(settings.std),
        "label_map": {r.label_name: {"label_dict": r.class_id, "class": r.label} for r in rows},
        "augmentation": HOSTS_OWN if augmented else None,
        "datasets": dict(parts),
        "fixes": list(fixes),
    }


def _compared(
    settings: Settings, index: DatasetIndex, rows: Sequence[FrameRow], split: str, asked: int
) -> str:
    """Whether the plugin's loader would have the same rows.

    Hosts take the first frames of a video whatever ``frame_sampling`` says; a class that obeys it, as the
    embedded host's does, is held to what it says.
    """
    theirs = {(plain(row.path), row.class_id) for row in rows}

    def differing(sampling: str) -> int:
        ours = collect_rows(settings, index, split=split, asked=asked, sampling=sampling).rows
        return len({(plain(row.path), row.class_id) for row in ours} ^ theirs)

    try:
        number = min(map(differing, {"first", settings.frame_sampling}))
    except UserError as error:
        return f"not comparable: {' '.join(str(error).split())}"
    return f"differs by {counted(number, 'row')}" if number else EQUAL
