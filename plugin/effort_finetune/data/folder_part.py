"""The part of a folder that a run reads: its training, validation or test share, and why."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.data.class_words import CLASSES
from effort_finetune.data.collect import FrameRow
from effort_finetune.data.folder_division import FolderContent, read_folder
from effort_finetune.data.folder_options import FolderOptions
from effort_finetune.data.folder_samples import Sample
from effort_finetune.data.sampling import take_frames

if TYPE_CHECKING:
    from effort_finetune.config import Settings

OWN_SPLITS, DIVIDED = "split folders", "divided"


@dataclass(frozen=True)
class TrainedFolder:
    """What a run or a weights file says of a folder that it was trained on.

    Attributes:
        name: Its label there.
        listing_sha256: Hash of names and sizes of its pictures then.
        options: How it was divided, see :meth:`FolderOptions.to_dict`.
        selected_on: Whether its validation part chose the checkpoint.
    """

    name: str
    listing_sha256: str
    options: Mapping[str, Any] = field(default_factory=dict)
    selected_on: bool = True

    def record(self, fit: str) -> dict[str, Any]:
        """What the weights state; :meth:`of_record` reads it."""
        named = {"name": self.name, "listing_sha256": self.listing_sha256, "selected_on": self.selected_on}
        return {**named, "fit": fit, **self.options}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> TrainedFolder:
        """Reads one dataset of a weights file's record."""
        listing, chose = str(record.get("listing_sha256", "")), bool(record.get("selected_on", True))
        return cls(str(record["name"]), listing, dict(record), chose)


@dataclass(frozen=True)
class FolderPart:
    """The samples of one split of a folder.

    Attributes:
        content: The folder.
        samples: What is read.
        taken: What they are: ``test folder``, ``held-out share``, ``whole folder``, ...
        warnings: What a number on them has to say.
        notes: What is worth a line in the log.
    """

    content: FolderContent
    samples: tuple[Sample, ...]
    taken: str
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def rows(self, label: str, split: str, *, asked: int, sampling: str) -> list[FrameRow]:
        """Rows in the order of class, place and time; a still is a video of one frame."""
        return [
            FrameRow(
                label,
                path,
                CLASSES.index(sample.label),
                CLASSES.index(sample.label),
                sample.label if sample.group is None else f"{sample.label}/{sample.group}",
                f"{label}/{sample.place}",
                split,
            )
            for sample in self.samples
            for path in take_frames(sample.frames, asked, sampling)
        ]

    def describe(self) -> dict[str, Any]:
        """For the results: where from, how divided, what was left out; JSON types only."""
        content = self.content
        divided = content.own_splits in (frozenset(), frozenset({"train"}))
        persons = content.people()[1] if self.taken.endswith("share") else None
        return {
            "folder": visible(content.listing.folder, limit=None),
            "taken": self.taken,
            "listing_sha256": content.sha256,
            "splits": DIVIDED if divided else OWN_SPLITS,
            **content.options.to_dict(),
            "persons": None if persons is None else persons.persons,
            "person_rules": None if persons is None else persons.line(),
            "pictures_listed": len(content.listing.pictures),
            "not_taken": dict(content.sampled.skipped),
            "notes": [*content.sampled.notes, *self.notes],
        }


def folder_part(
    folder: Path, settings: Settings, *, split: str, trained: Sequence[TrainedFolder] = ()
) -> FolderPart:
    """Chooses the samples of a folder that a run reads.

    A training folder gives its ``train`` folder, or its share of a seeded division; a test folder is read
    from ``test``, else ``val``, else whole, and where it was trained on, only what was held out.

    Args:
        folder: The folder.
        settings: The run's settings.
        split: ``train``, ``val`` or ``test``.
        trained: Folders that the model is trained on, in this run or by the record of its weights.

    Raises:
        UserError: Nothing to read for this split.
    """
    content = read_folder(folder, FolderOptions.of(settings))
    known = next((t for t in trained if t.listing_sha256 == content.sha256), None)
    if split == "test":
        part = _test_part(content, known, take_all=settings.split == "all")
    else:
        part = _training_part(content, split)
    if split == "test" and known is not None:
        part = _met_before(part)
    part = _changed(part, folder, trained, known)
    if not part.samples:
        raise _empty(folder, part, split)
    return _limited(part, settings.limit, split)


def _chosen(content: FolderContent, splits: Sequence[str | None], wanted: str) -> tuple[Sample, ...]:
    return tuple(s for s, split in zip(content.samples, splits, strict=True) if split == wanted)


def _own(content: FolderContent, split: str) -> tuple[Sample, ...]:
    return tuple(sample for sample in content.samples if sample.split == split)


def _training_part(content: FolderContent, split: str) -> FolderPart:
    own = content.own_splits
    if not own:
        return FolderPart(
            content, _chosen(content, content.divided(content.options), split), f"{split} share"
        )
    if split == "val" and "val" in own:
        return FolderPart(content, _own(content, "val"), "val folder")
    if own >= {"train", "val"} or "train" not in own:
        return FolderPart(content, _own(content, split), f"{split} folder")
    parts = content.divided(content.options, among="train")
    return FolderPart(
        content, _chosen(content, parts, split), f"{split} share",
        notes=("no val folder: the train folder is divided into train and val",),
    )  # fmt: skip


def _test_part(content: FolderContent, known: TrainedFolder | None, *, take_all: bool) -> FolderPart:
    own = content.own_splits
    if take_all:
        told = ["all pictures are scored, of all splits (--split all)"]
        told += ["among them are those trained on"] if known else []
        return FolderPart(content, content.samples, "all", tuple(told))
    if "test" in own:
        return FolderPart(content, _own(content, "test"), "test folder")
    chose = (
        "" if known is None or not known.selected_on else "; it chose the checkpoint, so it is selection data"
    )
    if "val" in own:
        told = [f"no test folder: scored on the val folder{chose}"]
        return FolderPart(content, _own(content, "val"), "val folder", tuple(told))
    if known is None:
        return FolderPart(content, content.samples, "whole folder")
    options = content.options.as_stated(known.options)
    if own:
        parts = content.divided(options, among="train")
        told = [f"no test and no val folder: scored on the val share of the train folder{chose}"]
        return FolderPart(content, _chosen(content, parts, "val"), "held-out share", tuple(told))
    parts = content.divided(options)
    held, samples = _chosen(content, parts, "test"), len(content.samples)
    note = f"trained on: only the held-out share is scored, {len(held)} of {samples} samples"
    return FolderPart(content, held, "held-out share", notes=(note,))


def _changed(
    part: FolderPart, folder: Path, trained: Sequence[TrainedFolder], known: TrainedFolder | None
) -> FolderPart:
    """Says where a folder has the name of one that was trained on, with other pictures."""
    name = folder.resolve().name.lower()
    namesakes = [t for t in trained if t.name.rpartition("/")[2].lower() == name]
    if known is not None or not namesakes or part.taken == "test folder":
        return part
    told = (
        f"the weights were trained on a folder named {visible(namesakes[0].name)} with other pictures: "
        "which of these were trained on is not known"
    )
    return FolderPart(part.content, part.samples, part.taken, (*part.warnings, told), part.notes)


def _met_before(part: FolderPart) -> FolderPart:
    """Says how many samples of the folder's own test or val folder show persons of its train folder."""
    if part.taken not in ("test folder", "val folder") or "train" not in part.content.own_splits:
        return part
    chosen = {sample.place for sample in part.samples}
    met = 0
    for group in part.content.people()[0]:
        samples = [part.content.samples[place] for place in group]
        if any(sample.split == "train" for sample in samples):
            met += sum(sample.place in chosen for sample in samples)
    if not met:
        return part
    told = (
        f"{met} of {len(part.samples)} samples of its {part.taken} show persons or pictures of its train "
        "folder: the numbers hold training data"
    )
    return FolderPart(part.content, part.samples, part.taken, (*part.warnings, told), part.notes)


def _limited(part: FolderPart, limit: int | None, split: str) -> FolderPart:
    """At most ``limit`` samples of each class, drawn from the seed."""
    counts = Counter(sample.label for sample in part.samples)
    if limit is None or max(counts.values()) <= limit:
        return part
    kept: set[str] = set()
    for label in CLASSES:
        places = [sample.place for sample in part.samples if sample.label == label]
        draw = random.Random(f"{part.content.options.seed} limit {split} {label}")
        kept.update(places if len(places) <= limit else draw.sample(places, limit))
    samples = tuple(sample for sample in part.samples if sample.place in kept)
    note = f"--limit {limit}: {len(samples)} of {len(part.samples)} samples, drawn by seed"
    return FolderPart(part.content, samples, part.taken, part.warnings, (*part.notes, note))


def _empty(folder: Path, part: FolderPart, split: str) -> UserError:
    own = ", ".join(sorted(part.content.own_splits))
    step = {
        "train": "put pictures into its train folder, or take the split folders away",
        "val": "add pictures, or choose the checkpoint otherwise: --val_dataset NAME or --select_on last",
        "test": "add pictures, or score all of them: --split all",
    }[split]
    return UserError(
        f"folder {visible(folder)} has nothing to {'test on' if split == 'test' else split + ' on'}",
        got=f"{len(part.content.samples)} samples" + (f" in {own}" if own else " for three splits"),
        expected=f"samples in its {part.taken}",
        next_step=step,
    )
