"""Rows of a split, read from the dataset's JSON index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError
from effort_finetune.data.index import SPLITS, DatasetIndex, Video, class_id
from effort_finetune.data.sampling import take_frames

if TYPE_CHECKING:
    from effort_finetune.config import Settings

NAMED = 5  # videos and groups that a remark names


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One frame of one video.

    Attributes:
        dataset: Name the caller asked for.
        path: Frame path exactly as the index lists it.
        label: 0 real, 1 fake.
        class_id: The host's raw label, the value of ``label_dict`` (1 and above is fake).
        label_name: The video's key in ``label_dict``.
        video: Unique over datasets, label groups and compressions:
            ``<dataset>/<group>/[<compression>/]<video>``.
        split: ``train``, ``val`` or ``test``.
    """

    dataset: str
    path: str
    label: int
    class_id: int
    label_name: str
    video: str
    split: str


@dataclass(frozen=True)
class Collected:
    """Rows of one split of a dataset, and what of the index they are not.

    Attributes:
        rows: Videos in the index's order, their frames in order of time.
        frames_listed: Frames of the split, each counted once.
        videos: Videos that have rows.
        shorter_than_asked: How many of them have fewer frames than were asked for.
        without_frames: Videos that the index lists with no frame (or with those of an earlier video only).
        without_split: Label groups that lack the split.
        listed_again: Entries that repeat a frame which the split has already.
    """

    rows: list[FrameRow]
    frames_listed: int
    videos: int
    shorter_than_asked: int
    without_frames: list[str] = field(default_factory=list)
    without_split: list[str] = field(default_factory=list)
    listed_again: int = 0

    @property
    def videos_listed(self) -> int:
        """Videos of the split, with those that have no frame."""
        return self.videos + len(self.without_frames)

    def remarks(self, split: str) -> list[str]:
        """Returns a sentence for each way in which the numbers do not cover what the index lists."""
        sentences = []
        if self.without_frames:
            sentences.append(
                f"{len(self.without_frames)} of {self.videos_listed} {split} videos list no frame of "
                f"their own and are left out: {_first(self.without_frames)}"
            )
        if self.without_split:
            sentences.append(
                f"{counted(len(self.without_split), 'label group has', 'label groups have')} "
                f"no {split} split: {_first(self.without_split)}"
            )
        if self.listed_again:
            sentences.append(
                f"{counted(self.listed_again, f'{split} entry repeats', f'{split} entries repeat')} "
                "a frame that is listed before: each frame is one sample, of the video that lists it first"
            )
        return sentences

    def facts(self) -> dict[str, Any]:
        """Returns the counts for a result's protocol, JSON types only."""
        return {
            "videos_listed": self.videos_listed,
            "videos": self.videos,
            "videos_without_frames": len(self.without_frames),
            "groups_without_split": list(self.without_split),
            "frames_listed": self.frames_listed,
            "frames_listed_again": self.listed_again,
            "frames_used": len(self.rows),
            "frames_used_per_video": len(self.rows) / max(self.videos, 1),
            "videos_shorter_than_asked": self.shorter_than_asked,
        }


def collect_rows(
    settings: Settings, index: DatasetIndex, *, split: str, asked: int, sampling: str
) -> Collected:
    """Lists a split and samples each video's frames.

    The contract is upstream's (``training/dataset/abstract_dataset.py``): a video's class is its own
    ``label`` in ``label_dict``, its frames are ordered by their number. What upstream fails on or counts
    twice is left out and counted here.

    Args:
        settings: ``label_dict`` is read.
        index: The dataset's index, at the compression level that the run takes.
        split: ``train``, ``val`` or ``test``.
        asked: Frames wanted per video.
        sampling: ``uniform`` or ``first``.

    Raises:
        UserError: Empty split, malformed entry, a label that is not in ``label_dict``, or a frame that is
            listed both as real and as fake.
    """
    videos = index.videos(split)
    if not videos:
        raise _empty_split(index, split)
    empty = [item.id for item in index.walk(split) if isinstance(item, Video) and not item.frames]
    owners: dict[str, tuple[int, Video]] = {}
    rows: list[FrameRow] = []
    shorter = again = used = 0
    for video in videos:
        number = class_id(settings, video, index.path)
        label = int(number > 0)
        own = [path for path in dict.fromkeys(video.frames) if path not in owners]
        again += len(video.frames) - len(own)
        for path in video.frames:
            other, first = owners.setdefault(path, (label, video))
            if other != label:
                raise _in_both_classes(index, path, first, video)
        if not own:
            empty.append(video.id)
            continue
        used += 1
        shorter += len(own) < asked
        rows += [
            FrameRow(index.name, path, label, number, video.label_name, video.id, split)
            for path in take_frames(own, asked, sampling)
        ]
    lacking = [group for group, splits in index.groups.items() if split not in splits]
    return Collected(rows, len(owners), used, shorter, empty, lacking, again)


def _empty_split(index: DatasetIndex, split: str) -> UserError:
    counts = {other: index.videos(other) for other in SPLITS}
    levels = any(video.compression is not None for videos in counts.values() for video in videos)
    filled = [f"{name} ({counted(len(videos), 'video')})" for name, videos in counts.items() if videos]
    return UserError(
        f"split {split!r} of dataset {index.name!r} is empty",
        got="no video with frames" + (f" at compression {index.compression!r}" if levels else ""),
        expected=f"one of the splits that have some: {', '.join(filled)}" if filled else "videos with frames",
        next_step=f"choose another dataset or split, or complete {index.path}",
    )


def _in_both_classes(index: DatasetIndex, path: str, first: Video, second: Video) -> UserError:
    return UserError(
        f"a frame of {index.path} is listed as real and as fake",
        got=f"{path!r} in {first.id} and in {second.id}",
        expected="each frame in one class",
        next_step=f"correct the index; `effort-finetune check-data {index.name}` lists all such frames",
    )


def _first(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
