"""What there is to crop below a folder: videos, frames of videos, loose pictures, each with its class."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.files import sha256_file
from effort_finetune.data.class_words import CLASSES, ClassWords, is_frames, split_of
from effort_finetune.data.container import Facts
from effort_finetune.data.folder_division import read_folder
from effort_finetune.data.folder_listing import VIDEO_SUFFIXES, FolderListing, list_folder
from effort_finetune.data.folder_options import FolderOptions
from effort_finetune.data.folder_samples import NO_CLASS, Sample, take_samples
from effort_finetune.data.several_pictures import holds_several
from effort_finetune.data.source_container import source_container
from effort_finetune.data.walk import IMAGE_SUFFIXES

Kind = Literal["video", "frames", "picture"]


@dataclass(frozen=True)
class CropSource:
    """One video, or one loose picture.

    Attributes:
        label: ``real`` or ``fake``.
        name: Its name in the dataset, unique in its class.
        root: The folder that was given.
        files: Paths below the root: one video, one picture, or the frames of a video.
        kind: Which of the three.
        split: What a ``train``, ``val`` or ``test`` folder says; None without such folders.
    """

    label: str
    name: str
    root: Path
    files: tuple[str, ...]
    kind: Kind
    split: str | None

    @property
    def title(self) -> str:
        """``real/0001``: no other source of the dataset has it."""
        return f"{self.label}/{self.name}"

    @property
    def place(self) -> str:
        """The file, or the folder of the frames, below the root."""
        return self.files[0].rpartition("/")[0] if self.kind == "frames" else self.files[0]

    def paths(self) -> list[Path]:
        """Its files."""
        return [self.root / file for file in self.files]

    def look(self) -> str:
        """A hash of names, sizes and times: equal ones are not read again."""
        parts = []
        for path in self.paths():
            found = os.stat(path)
            parts.append(f"{path.name}\n{found.st_size}\n{found.st_mtime_ns}\n")
        return hashlib.sha256("".join(parts).encode(errors="surrogateescape")).hexdigest()

    def sha256(self) -> str:
        """A hash of the content: of a video's or picture's bytes, or of the frames' names and bytes."""
        if len(self.files) == 1 and self.kind != "frames":
            return sha256_file(self.root / self.files[0])
        lines = "".join(f"{path.name}\n{sha256_file(path)}\n" for path in self.paths())
        return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()

    def container(self) -> Facts | None:
        """What its file, or its first frame's, tells without its content; None where it cannot be read."""
        return source_container(self.paths()[0], video=self.kind == "video")


@dataclass(frozen=True)
class FoundSources:
    """What a folder holds.

    Attributes:
        sources: Real ones first, in order of their places.
        skipped: Number of files that are not taken, by reason.
        notes: Sentences about how folders were read.
    """

    sources: tuple[CropSource, ...]
    skipped: dict[str, int]
    notes: tuple[str, ...]


def find_sources(
    folder: Path, words: ClassWords, *, pictures: str = "auto", label: str | None = None
) -> FoundSources:
    """Finds videos and pictures at any depth, with the class that the folders above them tell.

    Args:
        folder: The folder.
        words: How names of folders tell classes.
        pictures: Whether numbered pictures of one folder are ``videos``, ``stills``, or ``auto``.
        label: The class of all, where no folder tells one.

    Raises:
        UserError: No such folder, nothing in it, no class, or names that no index can hold apart.
    """
    if not folder.is_dir():
        raise UserError("folder of videos or pictures", got=f"{visible(folder)} is none", expected="a folder")
    options = _options(folder, words, pictures, label)
    films = list_folder(folder, suffixes=VIDEO_SUFFIXES)
    stills = list_folder(folder)
    parts, unclassed = [], 0
    told = [_tells_a_class(listing, options.words) for listing in (stills, films)]
    if stills.pictures and (told[0] or not told[1]):
        parts.append(read_folder(folder, options).sampled)
    else:
        unclassed += len(stills.pictures)
    if films.pictures and (told[1] or not told[0]):
        parts.append(take_samples(films, options.words, kind="stills"))
    else:
        unclassed += len(films.pictures)
    if not parts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in stills.skipped.items())
        raise UserError(
            f"no videos or pictures in {visible(folder)}", got=reasons or "it is empty",
            expected="videos or pictures, in folders such as real/ and fake/",
            next_step="check the path",
        )  # fmt: skip
    taken = VIDEO_SUFFIXES | IMAGE_SUFFIXES  # each listing counts what the other takes
    skipped: Counter[str] = Counter()
    for part in parts:
        skipped |= Counter(part.skipped)
    for reason in [r for r in skipped if r.startswith("video (") or any(f"({s})" in r for s in taken)]:
        del skipped[reason]
    if unclassed:
        skipped[NO_CLASS] += unclassed
    sources = _named(folder, options.words, [sample for part in parts for sample in part.samples])
    return FoundSources(
        tuple(sources), dict(sorted(skipped.items())), tuple(note for part in parts for note in part.notes)
    )


def _options(folder: Path, words: ClassWords, pictures: str, label: str | None) -> FolderOptions:
    real, fake = words.real, words.fake
    if label is not None:  # the folder's own name tells the class, and no other name does
        named, none = (glob.escape(folder.resolve().name),), ("\0",)
        real, fake = (named, none) if label == "real" else (none, named)
    return FolderOptions(samples=pictures, real_folders=real, fake_folders=fake)


def _tells_a_class(listing: FolderListing, words: ClassWords) -> bool:
    """Tells whether any folder above any of the files tells a class."""
    if words.named(listing.folder.resolve().name):
        return bool(listing.pictures)
    parents = {picture.path.rpartition("/")[0] for picture in listing.pictures}
    return any(words.classes(part) for parent in parents for part in parent.split("/") if part)


def _named(folder: Path, words: ClassWords, samples: Sequence[Sample]) -> list[CropSource]:
    """A name is the path below the class's folder, joined by ``__``; equal ones get more of their path."""
    forms = [_forms(sample, words) for sample in samples]
    chosen = [0] * len(samples)
    for longer in range(1, 3):
        often = Counter((s.label, f[c]) for s, f, c in zip(samples, forms, chosen, strict=True))
        for place, (sample, form) in enumerate(zip(samples, forms, strict=True)):
            if often[sample.label, form[chosen[place]]] > 1:
                chosen[place] = longer
    sources: dict[str, CropSource] = {}
    for sample, form, choice in zip(samples, forms, chosen, strict=True):
        kind: Kind = "picture" if sample.still else "frames"
        if sample.still and _moves(folder / sample.place):
            kind = "video"
        source = CropSource(sample.label, form[choice], folder, sample.frames, kind, sample.split)
        if source.title in sources:
            other = sources[source.title].files[0]
            raise UserError(
                f"two sources of the name {visible(source.name)!r}",
                got=f"{visible(other)} and {visible(sample.place)}",
                expected="one name each", next_step="rename one of them",
            )  # fmt: skip
        sources[source.title] = source
    return [source for label in CLASSES for source in sources.values() if source.label == label]


def _moves(file: Path) -> bool:
    """Tells a video, also an animated picture, from a picture."""
    return file.suffix.lower() in VIDEO_SUFFIXES or holds_several(file) == "animation"


def _forms(sample: Sample, words: ClassWords) -> tuple[str, str, str]:
    """The name of a sample: short, with its suffix, with all folders above it."""
    place = Path(sample.place)
    folders = place.parts[:-1]
    deepest = max((i for i, part in enumerate(folders) if words.classes(part)), default=-1)
    below = [part for part in folders[deepest + 1 :] if not is_frames(part) and not split_of(part)]
    own = place.stem if sample.still else place.name
    whole = f"{own}_{place.suffix[1:]}" if sample.still else own
    return "__".join([*below, own]), "__".join([*below, whole]), "__".join([*folders, whole])
