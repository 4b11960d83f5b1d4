"""What can be wrong with a dataset's index, found without reading a frame."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from effort_finetune.core.counted import counted
from effort_finetune.core.errors import suggest
from effort_finetune.data.index import SPLITS, DatasetIndex, Problem, Video
from effort_finetune.data.sampling import frame_order

if TYPE_CHECKING:
    from effort_finetune.config import Settings

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing found, in one or all splits.

    Attributes:
        level: ``error``: a run fails or its numbers are wrong; ``warning``: numbers need a remark; ``note``.
        kind: Short stable name for programs, e.g. ``missing_frames``.
        split: The split, None for the dataset as a whole.
        count: How many videos, frames or entries it concerns.
        message: For people, with the count.
        next_step: What to do.
        items: All of the videos, frames or entries.
    """

    level: Level
    kind: str
    split: str | None
    count: int
    message: str
    next_step: str
    items: list[str] = field(default_factory=list)


def index_findings(
    index: DatasetIndex, videos: Mapping[str, Sequence[Video]], settings: Settings
) -> Iterator[Finding]:
    """Yields everything that the index alone tells: labels, then split by split, then across splits.

    Args:
        index: The dataset's index.
        videos: Its videos by split, also those without frames.
        settings: ``label_dict`` and ``frame_num`` are read.
    """
    yield from _unknown_labels(videos, settings)
    for split in SPLITS:
        problems = [item for item in index.walk(split) if isinstance(item, Problem)]
        if problems:
            yield Finding(
                "error",
                "malformed",
                split,
                len(problems),
                counted(len(problems), "entry is no video", "entries are no videos"),
                f"write {index.path.name} again",
                [f"{problem.where}: {problem.what}" for problem in problems],
            )
        yield from _split_findings(split, videos[split], settings)
        yield from _groups_without(split, index, videos[split])
    yield from _overlaps(videos)


def _split_findings(split: str, videos: Sequence[Video], settings: Settings) -> Iterator[Finding]:
    filled = [video for video in videos if video.frames]
    if not filled:
        text = (
            "no videos; choose the checkpoint on another split or dataset" if split == "val" else "no videos"
        )
        level: Level = "note" if split == "val" else "warning"
        yield Finding(level, "empty_split", split, 0, text, "nothing, unless you meant to use it")
        return
    yield from _class_findings(split, filled, settings)
    yield from _video_findings(split, videos, settings)
    yield from _frame_findings(split, filled, settings)


def _groups_without(split: str, index: DatasetIndex, videos: Sequence[Video]) -> Iterator[Finding]:
    """A group that lacks a split which other groups have is left out of it."""
    lacking = [
        group for group, splits in index.groups.items() if isinstance(splits, Mapping) and split not in splits
    ]
    if videos and lacking:
        yield Finding(
            "warning",
            "group_without_split",
            split,
            len(lacking),
            counted(
                len(lacking),
                f"label group has no {split} split and is left out of it",
                f"label groups have no {split} split and are left out of it",
            ),
            "nothing, if that is meant; else complete the index",
            lacking,
        )


def _unknown_labels(videos: Mapping[str, Sequence[Video]], settings: Settings) -> Iterator[Finding]:
    unknown: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for split in SPLITS:
        for video in videos[split]:
            if video.frames and video.label_name not in settings.label_dict:
                unknown[video.label_name].setdefault(split, []).append(video.id)
    for label, by_split in unknown.items():
        ids = [name for names in by_split.values() for name in names]
        where = ", ".join(f"{len(names)} {split}" for split, names in by_split.items())
        near = suggest(label, settings.label_dict)
        hint = f" (label_dict has {', '.join(near)})" if near else ""
        yield Finding(
            "error",
            "unknown_label",
            None,
            len(ids),
            f"{counted(len(ids), f'video ({where}) has', f'videos ({where}) have')} "
            f"the label {label!r}, which is not in label_dict{hint}",
            f"add `{label}: 0` (real) or `: 1` (fake) to label_dict",
            ids,
        )


def _class_findings(split: str, videos: Sequence[Video], settings: Settings) -> Iterator[Finding]:
    known = [v.label_name for v in videos if v.label_name in settings.label_dict]
    classes = {settings.label_dict[label] > 0 for label in known}
    if len(classes) == 1 and len(known) == len(videos):
        yield Finding(
            "warning",
            "one_class",
            split,
            len(videos),
            f"all {len(videos)} videos are {'fake' if classes.pop() else 'real'}: no AUC can be computed",
            "add a dataset or label group of the other class",
        )


def _video_findings(split: str, videos: Sequence[Video], settings: Settings) -> Iterator[Finding]:
    empty = [video.id for video in videos if not video.frames]
    if empty:
        yield Finding(
            "warning",
            "no_frames",
            split,
            len(empty),
            counted(
                len(empty), "video lists no frame and is left out", "videos list no frame and are left out"
            ),
            "crop them again, or take them out of the index",
            empty,
        )
    asked = settings.frame_num.test if split == "test" else settings.frame_num.train
    short = [f"{v.id} ({len(v.frames)})" for v in videos if 0 < len(v.frames) < asked]
    if short:
        yield Finding(
            "warning",
            "short_videos",
            split,
            len(short),
            f"{counted(len(short), 'video has', 'videos have')} fewer than the {asked} frames asked for",
            "nothing: all they have is used and counted",
            short,
        )
    folders: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        if video.frames:
            folders[_folder(video.frames[0])].append(video.id)
    colliding = [name for names in folders.values() if len(names) > 1 for name in names]
    if colliding:
        yield Finding(
            "warning",
            "name_collision",
            split,
            len(colliding),
            f"{len(colliding)} videos share their folder's name with another: the host's own video metrics "
            "merge them, the plugin's do not",
            "compare video metrics of the plugin only",
            colliding,
        )


def _frame_findings(split: str, videos: Sequence[Video], settings: Settings) -> Iterator[Finding]:
    listed = Counter(path for video in videos for path in video.frames)
    twice = [path for path, count in listed.items() if count > 1]
    if twice:
        yield Finding(
            "warning",
            "frame_listed_twice",
            split,
            len(twice),
            f"{counted(len(twice), 'frame is', 'frames are')} "
            "listed more than once; each is one sample, of the first video",
            "look for videos that were added twice",
            twice,
        )
    classes: dict[str, set[bool]] = defaultdict(set)
    for video in videos:
        if video.label_name in settings.label_dict:
            for path in video.frames:
                classes[path].add(settings.label_dict[video.label_name] > 0)
    contradictory = [path for path, found in classes.items() if len(found) > 1]
    if contradictory:
        yield Finding(
            "error",
            "both_classes",
            split,
            len(contradictory),
            f"{counted(len(contradictory), 'frame is', 'frames are')} listed as real and as fake",
            "take them out of the wrong class",
            contradictory,
        )
    unnumbered = [path for path in listed if frame_order(path)[0]]
    if unnumbered:
        yield Finding(
            "note",
            "frame_name",
            split,
            len(unnumbered),
            f"{counted(len(unnumbered), 'frame is', 'frames are')} "
            "not named by a number: the numbers in names give the order, and DeepfakeBench's own "
            "loaders refuse such names",
            "nothing; for the host's own detectors rename the files: 000.png, 001.png, ...",
            unnumbered,
        )


def _overlaps(videos: Mapping[str, Sequence[Video]]) -> Iterator[Finding]:
    ids = {split: {v.id for v in videos[split] if v.frames} for split in SPLITS}
    frames = {split: {path for v in videos[split] for path in v.frames} for split in SPLITS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        common_frames = sorted(frames[first] & frames[second])
        common_videos = sorted(ids[first] & ids[second])
        if common_frames:
            yield Finding(
                "warning",
                "split_overlap",
                second,
                len(common_frames),
                f"{counted(len(common_frames), f'frame of {second} is', f'frames of {second} are')} "
                f"in {first} too, {counted(len(common_videos), 'video')} "
                "by name: results on it do not measure generalisation",
                "split by video again (`effort-finetune prepare index`), or say so beside the result",
                common_frames,
            )
        elif common_videos:
            yield Finding(
                "note",
                "shared_video_name",
                second,
                len(common_videos),
                f"{counted(len(common_videos), f'video of {second} has', f'videos of {second} have')} "
                f"the name of one in {first}, with other frames",
                "make sure that they are different videos",
                common_videos,
            )


def _folder(path: str) -> str:
    parts = re.split(r"[\\/]", path)
    return parts[-2] if len(parts) > 1 else ""
