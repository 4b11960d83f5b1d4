"""A folder of crops in DeepfakeBench's layout: listed, divided into splits, packed into an LMDB."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from effort_finetune.core.crop_recipe import CropRecipe
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.locks import hold
from effort_finetune.core.progress import track
from effort_finetune.data.class_words import CLASSES
from effort_finetune.data.crop_dataset import gather_shares
from effort_finetune.data.crop_record import SourceReport
from effort_finetune.data.folder_listing import Picture
from effort_finetune.data.index import Video
from effort_finetune.data.look_cache import looks_of
from effort_finetune.data.perceptual_hash import near_pairs
from effort_finetune.data.persons import PersonReport
from effort_finetune.data.sampling import ends_and_middle, frame_order
from effort_finetune.data.splits import Clip, split_clips
from effort_finetune.data.walk import IMAGE_SUFFIXES, below, images
from effort_finetune.data.write_dataset import write_index, write_lmdb

PACKED_SUFFIXES = IMAGE_SUFFIXES | {".npy"}


def label_names(name: str) -> dict[str, str]:
    """The label groups of a dataset, by class, as DeepfakeBench names them (``UADFV_Real``)."""
    return {"real": f"{name}_Real", "fake": f"{name}_Fake"}


def list_clips(rgb_dir: Path, name: str) -> list[Clip]:
    """Videos of ``<rgb_dir>/<name>/<real|fake>/frames/<video>/<number>.png``, or JPEG.

    Raises:
        UserError: No crops at all.
    """
    clips = []
    for label in CLASSES:
        folder = rgb_dir / name / label / "frames"
        videos = (
            sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
            if folder.is_dir()
            else []
        )
        clips += [
            clip for video in videos if (clip := Clip(video.name, label, _frames(rgb_dir, video))).frames
        ]
    if not clips:
        raise UserError(
            f"no crops of {name!r}",
            got=f"no <real or fake>/frames/<video>/<number>.png in {rgb_dir / name}",
            expected="crops of one class or both",
            next_step="run `effort-finetune prepare crop` first",
        )
    return clips


def _frames(rgb_dir: Path, video: Path) -> tuple[str, ...]:
    paths = [_key(rgb_dir, path) for path in images(video)]
    return tuple(sorted(paths, key=frame_order))


def _known(clip: Clip, report: SourceReport | None) -> Clip:
    """What ``crops.json`` adds to a clip; crops made elsewhere have nothing there."""
    if report is None:
        return clip
    return replace(clip, still=report.kind == "picture", content=report.sha256)


def _alike(rgb_dir: Path, name: str, clips: Sequence[Clip]) -> Iterator[tuple[int, int]]:
    """Pairs of clips that show the same picture at an end or in the middle, saved again or mirrored."""
    shown = [(place, path) for place, clip in enumerate(clips) for path in ends_and_middle(clip.frames)]
    pictures = []
    for _, path in shown:
        below_name = "/".join(path.split("\\")[1:])
        status = os.stat(rgb_dir / name / below_name)
        pictures.append(Picture(below_name, status.st_size, status.st_mtime_ns))
    looks = looks_of(rgb_dir / name, pictures, desc=f"looks of {visible(name, limit=40)}")
    for first, second in near_pairs([seen for _, seen in looks]):
        yield shown[first][0], shown[second][0]


def _key(rgb_dir: Path, path: Path) -> str:
    """Path in the index and key in the LMDB: below ``rgb_dir``, with backslashes."""
    return "\\".join(path.relative_to(rgb_dir).parts)


@dataclass(frozen=True)
class CropIndex:
    """What ``prepare index`` wrote.

    Attributes:
        path: The JSON file.
        videos: Its videos.
        people: Who was found in them; None where the sources' own folders decided the splits.
        recipe: How the crops were cut; None for crops that ``prepare crop`` did not make.
    """

    path: Path
    videos: list[Video]
    people: PersonReport | None
    recipe: CropRecipe | None


def index_crops(
    rgb_dir: Path,
    json_folder: Path,
    name: str,
    *,
    ratios: Mapping[str, float],
    seed: int,
    identity: str | None = None,
) -> CropIndex:
    """Writes the index of a folder of crops, divided by video and person.

    Sources from ``train``, ``val`` and ``test`` folders keep these splits. The file also holds the label of
    each group and the crop recipe.

    Args:
        rgb_dir: The host's folder of crops.
        json_folder: The host's ``dataset_json_folder``.
        name: Dataset.
        ratios: Share of ``train``, ``val`` and ``test``.
        seed: Of the division.
        identity: Pattern of a person in a video's name.

    Raises:
        UserError: No crops, or videos that cannot be divided.
    """
    with _no_other_writer(rgb_dir / name):
        return _index(rgb_dir, json_folder, name, ratios=ratios, seed=seed, identity=identity)


def _index(
    rgb_dir: Path,
    json_folder: Path,
    name: str,
    *,
    ratios: Mapping[str, float],
    seed: int,
    identity: str | None,
) -> CropIndex:
    record = gather_shares(rgb_dir / name)
    reports = record.reports if record is not None else {}
    clips = [_known(clip, reports.get(f"{clip.label}/{clip.name}")) for clip in list_clips(rgb_dir, name)]
    own = {title: report.split for title, report in reports.items()}
    splits = {(c.label, c.name): own.get(f"{c.label}/{c.name}") for c in clips}
    people = None
    if not all(splits.values()):
        alike = _alike(rgb_dir, name, clips)
        divided, people = split_clips(clips, ratios=ratios, seed=seed, identity=identity, alike=alike)
        splits.update(divided)
    labels = label_names(name)
    videos = [
        Video(
            name, labels[c.label], labels[c.label], None, c.name, splits[c.label, c.name] or "train", c.frames
        )
        for c in clips
    ]
    recipe = record.recipe if record is not None else None
    beside: dict[str, Any] = {"label_dict": {labels[label]: int(label == "fake") for label in CLASSES}}
    if record is not None and recipe is not None:
        beside["crop_recipe"] = {**recipe.to_dict(), "licence": record.licence}
    known = [(c, reports.get(f"{c.label}/{c.name}")) for c in clips]
    if sources := {f"{labels[c.label]}/{c.name}": r.container for c, r in known if r and r.container}:
        beside["sources"] = sources
    return CropIndex(write_index(json_folder, name, videos, beside=beside), videos, people, recipe)


def pack_crops(rgb_dir: Path, lmdb_dir: Path, name: str) -> tuple[Path, int]:
    """Packs all crops and landmarks under ``<rgb_dir>/<name>`` into ``<lmdb_dir>/<name>_lmdb``.

    Any folders below are taken, so upstream's own trees pack too. Keys are paths below ``rgb_dir`` with
    backslashes; crops and masks keep their file's bytes, landmarks become bare uint32 numbers.

    Returns:
        The LMDB and its number of entries.

    Raises:
        UserError: No crops there.
    """
    folder = rgb_dir / name
    files = (
        [path for path in below(folder) if path.suffix.lower() in PACKED_SUFFIXES] if folder.is_dir() else []
    )
    if not files:
        raise UserError(
            f"no crops of {name!r}",
            got=f"no images under {folder}",
            expected=f"the dataset's folder in rgb_dir {rgb_dir}",
            next_step="set rgb_dir, or run `effort-finetune prepare crop` first",
        )
    path = lmdb_dir / f"{name}_lmdb"
    with _no_other_writer(folder):
        return path, write_lmdb(path, _items(rgb_dir, files))


def _no_other_writer(folder: Path) -> AbstractContextManager[None]:
    """Keeps a run of ``prepare crop`` away while its crops are read; none writes a folder that cannot be."""
    able = folder.is_dir() and os.access(folder, os.W_OK)
    return hold(folder, what="folder of the crops", next_step="wait for it") if able else nullcontext()


def _items(rgb_dir: Path, files: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in track(files, desc="packing", unit="file"):
        if path.suffix.lower() == ".npy":
            yield _key(rgb_dir, path), np.load(path, allow_pickle=False).astype(np.uint32).tobytes()
        else:
            yield _key(rgb_dir, path), path.read_bytes()
