"""The JSON index of a dataset: which videos and frames a split holds.

Shape of the file: ``{name: {label_group: {split: {video: {label, frames}}}}}``; the FaceForensics++ family
has one more level between split and video, the compression (``c23``, ``c40``, ``raw``). The level is
recognised by its shape.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DatasetError, EmptySplitError

C40_SUFFIX = "_c40"


@dataclass(frozen=True, slots=True)
class Video:
    """One video of a split.

    Attributes:
        name: Unique name ``dataset/label_group[/compression]/video``.
        label: Value of ``label_dict``: 0 real, above 0 fake.
        frames: Frame paths as the index writes them, in order of their frame number.
    """

    name: str
    label: int
    frames: tuple[str, ...]


def split_name(name: str, compression: str) -> tuple[str, str]:
    """Return the plain dataset name and the compression asked for (``<name>_c40`` selects c40)."""
    return (name[: -len(C40_SUFFIX)], "c40") if name.endswith(C40_SUFFIX) else (name, compression)


def near(name: str, choices: Sequence[str]) -> str:
    """Return a hint that names the nearest choices, or all of a few."""
    close = difflib.get_close_matches(name, choices, n=3)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"there are: {', '.join(choices[:12])}" if choices else "there are none"


def read_index(folder: Path, name: str) -> Mapping[str, Any]:
    """Read ``<folder>/<name>.json`` and return what it holds under ``name``.

    Raises:
        DatasetError: No such file (the message suggests near names), not JSON, or not an index of ``name``.
    """
    path = folder / f"{name}.json"
    if not folder.is_dir():
        raise DatasetError(f"dataset '{name}': dataset_json_folder {folder} does not exist")
    if not path.is_file():
        names = sorted(file.stem for file in folder.glob("*.json"))
        raise DatasetError(f"dataset '{name}' has no index: {path} not found; {near(name, names)}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"dataset '{name}': {path} is not JSON: {error}") from error
    groups = content.get(name) if isinstance(content, dict) else None
    if not isinstance(groups, dict):
        raise DatasetError(f"dataset '{name}': {path} has no object named '{name}' at its top level")
    return groups


def frame_order(path: str) -> tuple[int, int, str]:
    """Sort key of a frame path: its number when its stem is one, else its name."""
    file_name = path.replace("\\", "/").rpartition("/")[2]
    stem = file_name.rpartition(".")[0] or file_name
    return (0, int(stem), path) if stem.isdigit() else (1, 0, path)


def _is_video(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("frames"), list) and "label" in entry


def _videos(
    splits: Any, wanted: str, name: str, group: str, compression: str
) -> tuple[Mapping[str, Any], str]:
    """Return the videos of a split and the name of the compression level they were under ('' for none)."""
    where = f"dataset '{name}', group '{group}'"
    split = (splits.get(wanted) or {}) if isinstance(splits, Mapping) else None
    if not isinstance(split, Mapping) or not all(isinstance(entry, Mapping) for entry in split.values()):
        raise DatasetError(f"{where} is not a table of splits, of videos")
    level = ""
    if split and not any("frames" in entry for entry in split.values()):
        if compression not in split:
            hint = near(compression, list(split))
            raise DatasetError(f"{where} has no compression '{compression}'; {hint}")
        split, level = split[compression], compression
    for video, entry in split.items():
        if not _is_video(entry):
            raise DatasetError(f"{where}: video '{video}' is not a table with a label and a list of frames")
    return split, level


def collect_videos(
    folder: Path, name: str, *, split: str, compression: str, label_dict: Mapping[str, int]
) -> list[Video]:
    """List the videos of one split of one dataset, in the index's order. A video without frames is left out.

    Args:
        folder: Folder of the JSON files.
        name: Dataset name, with or without ``_c40``.
        split: ``train``, ``val`` or ``test``.
        compression: Level to take where the index has levels.
        label_dict: Label name to class number.

    Raises:
        DatasetError: The index is missing or malformed, a label is not in ``label_dict``, or the split is
            empty.
    """
    plain, level_wanted = split_name(name, compression)
    videos: list[Video] = []
    for group, splits in read_index(folder, plain).items():
        entries, level = _videos(splits, split, plain, group, level_wanted)
        for video, entry in entries.items():
            label_name = entry["label"]
            if label_name not in label_dict:
                raise DatasetError(
                    f"label '{label_name}' of dataset '{plain}' (video '{video}') is not in label_dict; "
                    f"{near(str(label_name), sorted(label_dict))}"
                )
            if entry["frames"]:
                unique = "/".join(part for part in (plain, group, level, video) if part)
                frames = tuple(sorted(entry["frames"], key=frame_order))
                videos.append(Video(unique, int(label_dict[label_name]), frames))
    if not videos:
        path = folder / f"{plain}.json"
        raise EmptySplitError(f"dataset '{name}' has no frames in its '{split}' split ({path})")
    return videos


def sample_frames(frames: Sequence[str], count: int | None, *, sampling: str = "uniform") -> list[str]:
    """Choose at most ``count`` frames of a video.

    Args:
        frames: Paths in order.
        count: How many; None takes all.
        sampling: ``uniform`` spreads them evenly over the whole video (frame ``floor(i * total / count)``);
            ``first`` takes the first ones, as published DeepfakeBench numbers did.

    Raises:
        DatasetError: ``count`` is below 1 or ``sampling`` is unknown.
    """
    if sampling not in ("uniform", "first"):
        raise DatasetError(f"frame_sampling is '{sampling}', expected uniform or first")
    if count is None or count >= len(frames):
        return list(frames)
    if count < 1:
        raise DatasetError(f"frame_num is {count}, expected at least 1")
    if sampling == "first":
        return list(frames[:count])
    return [frames[index * len(frames) // count] for index in range(count)]
