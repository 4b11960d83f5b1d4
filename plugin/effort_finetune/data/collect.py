"""Rows of a split, as the host's own dataset class lists and labels them."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.core.errors import UserError
from effort_finetune.data.index import DatasetIndex, Video, available_splits, class_id
from effort_finetune.data.sampling import take_frames

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

EVERY_FRAME = 1 << 30  # more than any video has, so that the host hands over all of them


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
    """Rows of one dataset and what the sampling did to its videos."""

    rows: list[FrameRow]
    frames_listed: int
    videos: int
    shorter_than_asked: int


def collect_rows(
    host: Host, settings: Settings, index: DatasetIndex, *, split: str, asked: int, sampling: str
) -> Collected:
    """Lists a split through the host's dataset class and samples each video's frames.

    Args:
        host: Host whose class reads the index and interprets the labels.
        settings: ``label_dict`` and ``compression`` are read.
        index: The dataset's index.
        split: ``train``, ``val`` or ``test``.
        asked: Frames wanted per video.
        sampling: ``uniform`` or ``first``.

    Raises:
        UserError: Empty split, a label that is not in ``label_dict``, or an index that the host cannot read.
    """
    videos = index.videos(split)
    if not videos:
        raise _empty_split(host, settings, index, split)
    for video in videos:
        class_id(settings, video, index.path)
    chosen: dict[str, tuple[Video, int, list[str]]] = {}
    for video, path, label in _assign(videos, _host_rows(host, settings, index, videos, split)):
        chosen.setdefault(video.id, (video, label, []))[2].append(path)
    rows, shorter = [], 0
    for identifier, (video, label, paths) in chosen.items():
        shorter += len(paths) < asked
        rows += [
            FrameRow(index.name, path, int(label > 0), label, video.label_name, identifier, split)
            for path in take_frames(paths, asked, sampling)
        ]
    listed = sum(len(paths) for _, _, paths in chosen.values())
    return Collected(rows, listed, len(chosen), shorter)


def _empty_split(host: Host, settings: Settings, index: DatasetIndex, split: str) -> UserError:
    counts = available_splits(host, settings, index.name)
    levels = any(video.compression is not None for other in counts for video in index.videos(other))
    filled = [f"{name} ({count.videos} videos)" for name, count in counts.items() if count.videos]
    return UserError(
        f"split {split!r} of dataset {index.name!r} is empty",
        got="no video with frames" + (f" at compression {index.compression!r}" if levels else ""),
        expected=f"one of the splits that have some: {', '.join(filled)}" if filled else "videos with frames",
        next_step=f"choose another dataset or split, or complete {index.path}",
    )


def _host_rows(
    host: Host, settings: Settings, index: DatasetIndex, videos: Sequence[Video], split: str
) -> Iterator[tuple[str, int, str]]:
    """(path, label, host's video name) of every frame, from the host's own collecting method.

    The class is used without its constructor, which opens LMDB environments that workers then inherit,
    accepts only ``train`` and ``test``, and refuses several training sets. Its shuffle draws from Python's
    global generator, whose state is put back, so that opening a dataset does not change a seeded run.
    """
    with _normal_index(index, videos, split) as (folder, listed):
        frames = dict.fromkeys(("train", "val", "test"), EVERY_FRAME)
        reader: Any = object.__new__(host.dataset_class)
        reader.config = {
            "dataset_json_folder": str(folder),
            "label_dict": dict(settings.label_dict),
            "compression": index.compression,
            "frame_num": frames,
            "lmdb": False,
        }
        reader.mode = split
        reader.compression = index.compression
        reader.frame_num = EVERY_FRAME
        reader.video_level = False
        reader.clip_size = None
        reader.lmdb = False
        reader.image_list, reader.label_list = [], []
        state = random.getstate()
        try:
            paths, labels, names = reader.collect_img_and_label_for_one_dataset(index.name)
        except UserError:
            raise
        except Exception as error:  # a host raises what it likes, none of it meant for a user
            raise UserError(
                f"the host's dataset class cannot read {index.path}",
                got=f"{type(error).__name__}: {error}",
                expected="frame files named by numbers (000.png), a compression level only for FF++",
                next_step=f"run `effort-finetune check-data {index.name}`",
            ) from error
        finally:
            random.setstate(state)
    for path, label, name in zip(paths, labels, names, strict=True):
        yield listed.get(path, path), int(label), name


@contextlib.contextmanager
def _normal_index(
    index: DatasetIndex, videos: Sequence[Video], split: str
) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """A folder in which the host finds the split without what it cannot read, and the paths changed for it.

    Hosts fail on a video without frames, on a group that lacks the split and on mixed separators, and want
    ``<name>_c40`` in a file of its own. Only an index with one of these is written again, to a temporary
    folder.
    """
    slashes = {p: p.replace("\\", "/") for v in videos if _mixes_separators(v) for p in v.frames}
    listed = sum(1 for _ in index.walk(split))
    complete = all(split in splits for splits in index.groups.values())
    if listed == len(videos) and complete and index.name == index.key and not slashes:
        yield index.path.parent, {}
        return
    groups: dict[str, Any] = {group: {split: {}} for group in index.groups}
    for video in videos:
        place = groups[video.group][split]
        if video.compression is not None:
            place = place.setdefault(video.compression, {})
        place[video.name] = {"label": video.label_name, "frames": [slashes.get(p, p) for p in video.frames]}
    if any(video.compression for video in videos):
        for group in groups.values():
            group[split].setdefault(index.compression, {})
    with tempfile.TemporaryDirectory(prefix="effort_finetune_index_") as folder:
        text = json.dumps({index.key: groups})
        for name in {index.name, index.key}:  # hosts differ in where they look for a ``_c40`` name
            (Path(folder) / f"{name}.json").write_text(text, encoding="utf-8")
        yield Path(folder), {new: old for old, new in slashes.items()}


def _mixes_separators(video: Video) -> bool:
    """True where hosts cannot tell a frame's number: they choose one separator by the first frame."""
    kinds = {"\\" in path for path in video.frames}
    return len(kinds) > 1 or (True in kinds and any(p.rfind("/") > p.rfind("\\") for p in video.frames))


def _assign(videos: Sequence[Video], rows: Iterator[tuple[str, int, str]]) -> list[tuple[Video, str, int]]:
    """Gives each of the host's rows back its video, in the index's order.

    The host names a video ``<label>_<video>``, which is not unique; the frame's path is, but for indexes
    that list
    one frame twice: there the host's name decides, then the order.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for number, video in enumerate(videos):
        for path in video.frames:
            places[path].append(number)
    assigned = []
    for path, label, name in rows:
        candidates = places.get(path)
        if not candidates:
            raise UserError(
                "the host's dataset class lists a frame that the index does not hold",
                got=repr(path),
                expected="frames of the index alone",
                next_step="use an unmodified dataset/abstract_dataset.py in the host",
            )
        named = [n for n in candidates if name == f"{videos[n].label_name}_{videos[n].name}"]
        number = (named or candidates)[0]
        if len(candidates) > 1:
            candidates.remove(number)
        assigned.append((number, path, label))
    return [(videos[number], path, label) for number, path, label in sorted(assigned, key=lambda row: row[0])]
