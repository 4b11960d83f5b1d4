"""DeepfakeBench's JSON index of a dataset: found, validated and walked.

Layout: ``{name: {label_group: {train|val|test: {video: {label, frames}}}}}``; FaceForensics++ and its
relatives have one level more, the compression, between split and video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.core.crop_recipe import CropRecipe
from effort_finetune.core.errors import UserError, suggest
from effort_finetune.core.strict_json import read_json

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

SPLITS = ("train", "val", "test")
C40_SUFFIX = "_c40"


@dataclass(frozen=True, slots=True)
class Video:
    """One video of the index.

    Attributes:
        dataset: Name the caller asked for (``FaceForensics++_c40`` stays so).
        group: Label group, the key of the index that holds the video.
        label_name: The video's own ``label``, a key of ``label_dict``.
        compression: ``c23``, ``c40``, ``raw``; None where the index has no such level.
        name: The video's key, unique only inside its group, split and compression.
        split: ``train``, ``val`` or ``test``.
        frames: Frame paths exactly as listed.
    """

    dataset: str
    group: str
    label_name: str
    compression: str | None
    name: str
    split: str
    frames: tuple[str, ...]

    @property
    def id(self) -> str:
        """Identifier that no other video of the dataset has, whatever its folder is called."""
        parts = (self.dataset, self.group, self.compression, self.name)
        return "/".join(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class Problem:
    """A place of the index that cannot be read as a video."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class SplitCount:
    """What one split of a dataset holds, as listed."""

    videos: int
    frames: int
    real: int
    fake: int


@dataclass(frozen=True)
class DatasetIndex:
    """The parsed index of one dataset.

    Attributes:
        name: Name the caller asked for.
        key: Name under which the file holds it (without ``_c40``).
        path: The JSON file.
        compression: Compression level to take where the index has levels.
        groups: Content of the file under ``key``.
        labels: What the file itself says of its labels, as ``prepare index`` writes it.
        recipe: How its crops were cut; None where the file does not say.
        sources: What ``prepare`` saw of the files that they were made of, by ``<group>/<video>``.
    """

    name: str
    key: str
    path: Path
    compression: str
    groups: Mapping[str, Any]
    labels: Mapping[str, int] = field(default_factory=dict)
    recipe: CropRecipe | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)

    def walk(self, split: str) -> Iterator[Video | Problem]:
        """Yields every video of a split, and every entry that is not one, in the file's order."""
        for group, splits in self.groups.items():
            if not isinstance(splits, Mapping):
                yield Problem(group, f"expected splits, got {type(splits).__name__}")
                continue
            yield from self._walk_split(group, splits.get(split, {}), split)

    def _walk_split(self, group: str, videos: Any, split: str) -> Iterator[Video | Problem]:
        where = f"{group}/{split}"
        if not isinstance(videos, Mapping):
            yield Problem(where, f"expected videos, got {type(videos).__name__}")
            return
        if isinstance(videos.get("frames"), list):
            yield Problem(
                where, "is one video instead of a mapping of videos (an error of the script that wrote it)"
            )
            return
        compression = None
        if _has_compression_level(videos):
            compression = self.compression
            if compression not in videos:
                yield Problem(
                    where, f"has no compression {compression!r}, only {', '.join(map(repr, videos))}"
                )
                return
            where, videos = f"{where}/{compression}", videos[compression]
            if not isinstance(videos, Mapping):
                yield Problem(where, f"expected videos, got {type(videos).__name__}")
                return
        for name, entry in videos.items():
            if not isinstance(entry, Mapping) or not isinstance(entry.get("frames"), list):
                yield Problem(f"{where}/{name}", "expected a mapping with 'label' and a list of 'frames'")
            elif not isinstance(entry.get("label"), str):
                yield Problem(
                    f"{where}/{name}", f"label is {entry.get('label')!r}, expected a key of label_dict"
                )
            elif not all(isinstance(frame, str) and frame for frame in entry["frames"]):
                yield Problem(f"{where}/{name}", "a frame path is not a text")
            else:
                frames = tuple(entry["frames"])
                yield Video(self.name, group, entry["label"], compression, name, split, frames)

    def videos(self, split: str) -> list[Video]:
        """Videos of a split that list at least one frame.

        Raises:
            UserError: The index has an entry that is not a video.
        """
        found = []
        for item in self.walk(split):
            if isinstance(item, Problem):
                raise UserError(
                    f"dataset index {self.path} is malformed at {item.where}",
                    got=item.what,
                    expected="{name: {group: {split: {video: {label, frames}}}}}",
                    next_step=f"run `effort-finetune check-data {self.name}`",
                )
            if item.frames:
                found.append(item)
        return found


def _has_compression_level(videos: Mapping[str, Any]) -> bool:
    """A level of compressions holds mappings of videos, a level of videos holds mappings with frames."""
    values = [value for value in videos.values() if isinstance(value, Mapping)]
    return bool(values) and not any("frames" in value or "label" in value for value in values)


def index_folder(host: Host, settings: Settings) -> Path:
    """The folder of the JSON indexes, resolved against the host's root.

    Raises:
        UserError: It does not exist.
    """
    folder = host.resolve(settings.dataset_json_folder)
    if not folder.is_dir():
        raise UserError(
            "folder of the dataset JSON files not found",
            got=str(folder),
            expected="a folder of <dataset>.json files (dataset_json_folder)",
            next_step="set dataset_json_folder, or build the files with `effort-finetune prepare index`",
        )
    return folder


def available_datasets(host: Host, settings: Settings) -> list[str]:
    """Names of the datasets that have a JSON index in the host."""
    return sorted(path.stem for path in index_folder(host, settings).glob("*.json"))


def find_index(host: Host, settings: Settings, name: str) -> Path:
    """The JSON file of a dataset.

    ``<name>_c40`` reads ``<name>_c40.json`` as the host does, or ``<name>.json`` where that file does not
    exist.

    Raises:
        UserError: Unknown name; near ones are suggested.
    """
    folder = index_folder(host, settings)
    candidates = (folder / f"{name}.json", folder / f"{name.removesuffix(C40_SUFFIX)}.json")
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise _unknown_dataset(folder, name)
    return path


def load_index(host: Host, settings: Settings, name: str) -> DatasetIndex:
    """Reads the index of one dataset.

    Raises:
        UserError: Unknown name, not JSON, or a file that does not hold the dataset.
    """
    path = find_index(host, settings, name)
    key = name.removesuffix(C40_SUFFIX)
    compression = settings.compression if key == name else C40_SUFFIX[1:]
    try:
        content = read_json(path)
    except (ValueError, OSError) as error:
        raise UserError(
            f"dataset index {path} cannot be read",
            got=str(error),
            expected="a JSON file",
            next_step="write it again with `effort-finetune prepare index` or restore it from its source",
        ) from error
    groups = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(groups, Mapping):
        keys = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"dataset index {path} does not hold the dataset {key!r}",
            got=f"top level {keys}",
            expected=f"top level [{key!r}]",
            next_step="rename the file or its top-level key so that they agree",
        )
    recipe = CropRecipe.from_dict(content.get("crop_recipe"))
    labels, sources = _own_labels(content, key, groups), content.get("sources")
    sources = sources if isinstance(sources, Mapping) else {}
    return DatasetIndex(name, key, path, compression, groups, labels, recipe, sources)


def _unknown_dataset(folder: Path, name: str) -> UserError:
    names = sorted(path.stem for path in folder.glob("*.json"))
    near = suggest(name, names)
    if near:
        step = f"did you mean {' or '.join(near)}?"
    else:
        step = f"put {name}.json there or write it with `effort-finetune prepare index`"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return UserError(
        f"dataset {name!r} has no index",
        got=f"no {name}.json in {folder}",
        expected=f"one of: {shown}" if names else f"{name}.json",
        next_step=step,
    )


def available_splits(host: Host, settings: Settings, name: str) -> dict[str, SplitCount]:
    """What each split of a dataset holds, so that a caller can choose one (a host may list no ``val``).

    Returns:
        ``{'train' | 'val' | 'test': SplitCount}``, all three, with zeros where a split is absent.

    Raises:
        UserError: As :func:`load_index`; a label that is not in ``label_dict`` or a malformed entry.
    """
    index = load_index(host, settings, name)
    settings = with_own_labels(settings, index)
    counts = {}
    for split in SPLITS:
        videos = index.videos(split)
        labels = [class_id(settings, video, index.path) for video in videos]
        fake = sum(label > 0 for label in labels)
        counts[split] = SplitCount(
            len(videos), sum(len(video.frames) for video in videos), len(videos) - fake, fake
        )
    return counts


def with_own_labels(settings: Settings, index: DatasetIndex) -> Settings:
    """Adds the labels that a dataset's index brings along; what ``label_dict`` says of them already stays."""
    absent = {label: value for label, value in index.labels.items() if label not in settings.label_dict}
    return settings.changed(label_dict={**settings.label_dict, **absent}) if absent else settings


def _own_labels(content: Mapping[str, Any], key: str, groups: Mapping[str, Any]) -> dict[str, int]:
    """The file's ``label_dict``; of older ones by ``prepare index`` the names it gives, ``<name>_Real``."""
    stated = content.get("label_dict")
    found = {
        label: value
        for label, value in (stated.items() if isinstance(stated, Mapping) else ())
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0
    }
    named = {f"{key}_Real": 0, f"{key}_Fake": 1}
    return {**{label: value for label, value in named.items() if label in groups}, **found}


def class_id(settings: Settings, video: Video, source: Path) -> int:
    """The value of ``label_dict`` for a video.

    Raises:
        UserError: Its label is not in ``label_dict``.
    """
    if video.label_name not in settings.label_dict:
        near = suggest(video.label_name, settings.label_dict)
        raise UserError(
            f"label {video.label_name!r} of {source} is not in label_dict",
            got=f"{video.label_name!r} at {video.id}",
            expected=f"one of label_dict's {len(settings.label_dict)} names"
            + (f", such as {', '.join(near)}" if near else ""),
            next_step=f"add `{video.label_name}: 0` (real) or `: 1` (fake) to label_dict in the YAML",
        )
    return int(settings.label_dict[video.label_name])
