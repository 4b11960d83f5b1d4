"""From the pictures of a folder to samples: class, group and split by the folders they lie in."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.data.class_words import CLASSES, ClassWords, is_frames, split_of
from effort_finetune.data.folder_listing import FolderListing

OUTSIDE = "outside the train, val and test folders"
NO_CLASS = "in no folder whose name tells real or fake"
_NUMBERED = re.compile(r"(?P<prefix>.*?)\d+")


@dataclass(frozen=True, slots=True)
class Sample:
    """A loose picture, or the frames of one video.

    Attributes:
        label: ``real`` or ``fake``.
        group: Name of the generator or source, the folder below the class's; None where there is none.
        name: Of a video its folder's own name, of a still its stem.
        place: Path of the video's folder or of the still, below the dataset's.
        frames: Paths of the pictures below the dataset's folder.
        still: Whether it is a loose picture.
        split: What a ``train``, ``val`` or ``test`` folder says; None without such folders.
    """

    label: str
    group: str | None
    name: str
    place: str
    frames: tuple[str, ...]
    still: bool
    split: str | None


@dataclass(frozen=True)
class Sampled:
    """The samples of a folder and what was not taken, by reason.

    Attributes:
        samples: Real ones first, otherwise in order of their places.
        skipped: Pictures and files that are in none of them.
        notes: Sentences about how folders were read, for people.
    """

    samples: tuple[Sample, ...]
    skipped: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """What the folders above a picture say."""

    label: str | None
    below: tuple[str, ...]  # folders between the class's and the pictures, without those of splits and frames
    above: tuple[str, ...]  # folders above the class's that say nothing else
    split: str | None
    parent: str  # the folder that holds the pictures, below the dataset's
    below_frames: bool
    crossed: str | None  # a class folder inside one of the other class

    def group(self, *, is_video: bool) -> str | None:
        """The generator or source: the first folder below the class's, else one above it."""
        below = self.below[:-1] if is_video else self.below
        return next(iter((*below, *self.above)), None)


def take_samples(
    listing: FolderListing,
    words: ClassWords,
    *,
    kind: str = "auto",
    alike: Callable[[Sequence[Sequence[str]]], bool] | None = None,
) -> Sampled:
    """Sorts the pictures of a folder into samples.

    Args:
        listing: The folder's pictures.
        words: How names tell classes.
        kind: ``stills`` or ``videos`` for the pictures of folders below the class's; ``auto`` decides by
            their names and, where these could be both, by ``alike``.
        alike: Told the numbered pictures of sibling folders, says whether each folder's are of one scene.

    Raises:
        UserError: No folder tells a class, or one that decides for pictures tells both.
    """
    by_parent: dict[str, list[str]] = defaultdict(list)
    for picture in listing.pictures:
        by_parent[picture.path.rpartition("/")[0]].append(picture.path)
    root = listing.folder.resolve().name
    skipped: Counter[str] = Counter(listing.skipped)
    both: dict[str, str] = {}
    places = {parent: _place(parent, root, words, both, paths[0]) for parent, paths in by_parent.items()}
    if both:
        raise _ambiguous(listing, both)
    splits = {place.split for place in places.values() if place.split}
    kept: dict[str, _Place] = {}
    for parent, place in places.items():
        if place.label is None:
            skipped[NO_CLASS] += len(by_parent[parent])
        elif splits and place.split is None:
            skipped[OUTSIDE] += len(by_parent[parent])
        else:
            kept[parent] = place
    if not kept:
        raise _no_classes(listing, by_parent)
    videos = _video_folders(kept, by_parent, kind, alike)
    samples = [
        sample
        for parent, place in kept.items()
        for sample in _samples(place, by_parent[parent], parent in videos)
    ]
    samples.sort(key=lambda sample: (CLASSES.index(sample.label), sample.place.split("/")))
    return Sampled(tuple(samples), dict(skipped), tuple(_notes(kept.values())))


def _place(parent: str, root: str, words: ClassWords, both: dict[str, str], example: str) -> _Place:
    parts = parent.split("/") if parent else []
    split = next(filter(None, map(split_of, parts)), None)
    found = [words.classes(part) for part in parts]
    deepest = max((i for i, classes in enumerate(found) if classes), default=-1)
    label: str | None = None
    if deepest >= 0 and len(found[deepest]) == 1:
        label = found[deepest][0]
    elif deepest >= 0:
        both.setdefault(parts[deepest], example)
    elif len(by_hand := words.named(root)) == 1:
        label = by_hand[0]
    others = {classes[0] for classes in found[: max(deepest, 0)] if len(classes) == 1} - {label}
    below = [part for part in parts[deepest + 1 :] if not split_of(part)]
    above = [
        part
        for i, part in enumerate(parts[: max(deepest, 0)])
        if not found[i] and not split_of(part) and not is_frames(part)
    ]
    in_frames = len(parts) > 1 and is_frames(parts[-2])
    crossed = "/".join(parts[: deepest + 1]) if others else None
    plain = tuple(part for part in below if not is_frames(part))
    return _Place(label, plain, tuple(above), split, parent, in_frames, crossed)


def _video_folders(
    places: Mapping[str, _Place],
    by_parent: Mapping[str, Sequence[str]],
    kind: str,
    alike: Callable[[Sequence[Sequence[str]]], bool] | None,
) -> set[str]:
    """Folders whose pictures are the frames of one video."""
    videos = {parent for parent, place in places.items() if place.below_frames}
    open_question: dict[str, list[str]] = defaultdict(list)
    for parent, place in places.items():
        if parent in videos or not place.below:
            continue
        if kind == "videos":
            videos.add(parent)
        elif kind == "auto" and _numbered(by_parent[parent]):
            open_question[f"{place.label}/{parent.rpartition('/')[0]}"].append(parent)
    for parents in open_question.values():
        if alike is not None and alike([by_parent[parent] for parent in parents]):
            videos.update(parents)
    return videos


def _numbered(paths: Sequence[str]) -> bool:
    """Tells whether names are those of frames: one prefix and different numbers."""
    found = [_NUMBERED.fullmatch(os.path.splitext(path.rpartition("/")[2])[0]) for path in paths]
    return all(found) and len({match["prefix"] for match in found if match}) == 1


def _samples(place: _Place, paths: Sequence[str], is_video: bool) -> Iterable[Sample]:
    assert place.label is not None
    group = place.group(is_video=is_video)
    if is_video:
        name = place.parent.rpartition("/")[2]
        yield Sample(place.label, group, name, place.parent, tuple(paths), False, place.split)
        return
    for path in paths:
        stem = os.path.splitext(path.rpartition("/")[2])[0]
        yield Sample(place.label, group, stem, path, (path,), True, place.split)


def _notes(places: Iterable[_Place]) -> Iterable[str]:
    crossed = sorted({place.crossed for place in places if place.crossed})
    if crossed:
        yield (
            f"{counted(len(crossed), 'class folder lies', 'class folders lie')} "
            "inside one of the other class, the inner one counts: "
            f"{', '.join(map(visible, crossed[:3]))}"
        )


def _ambiguous(listing: FolderListing, both: Mapping[str, str]) -> UserError:
    examples = ", ".join(visible(path) for path in list(both.values())[:3])
    return UserError(
        f"folder {visible(listing.folder)}",
        got=f"{counted(len(both), 'folder name that tells', 'folder names that tell')} "
        f"real and fake at once, {visible(next(iter(both)))!r} of "
        f"{examples}",
        expected="folders that tell one class",
        next_step="rename them, or say which is which: --real_folders NAME --fake_folders NAME",
    )


def _no_classes(listing: FolderListing, by_parent: Mapping[str, Sequence[str]]) -> UserError:
    if not listing.pictures:
        reasons = ", ".join(f"{count} {reason}" for reason, count in listing.skipped.items())
        return UserError(
            f"folder {visible(listing.folder)}", got=f"no pictures ({reasons or 'it is empty'})",
            expected="pictures in folders such as real/ and fake/",
            next_step="check the path; of videos `effort-finetune prepare` makes pictures",
        )  # fmt: skip
    names = sorted({part for parent in by_parent for part in parent.split("/") if part})
    seen = f"folders {', '.join(map(visible, names[:5]))}" if names else "pictures without folders"
    return UserError(
        f"folder {visible(listing.folder)}",
        got=f"{counted(len(listing.pictures), 'picture')}, but no folder whose name tells a class ({seen})",
        expected="folders such as real/ and fake/ below it",
        next_step="say which is which: --real_folders NAME --fake_folders NAME",
    )
