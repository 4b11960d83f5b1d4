"""One dataset of a split as it was opened: rows, where they are read, and what is to be said of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effort_finetune.core.crop_recipe import CropRecipe
from effort_finetune.data.collect import Collected, collect_rows
from effort_finetune.data.dataset_name import folder_of
from effort_finetune.data.fit import CROP_SIDE, Fit
from effort_finetune.data.folder_part import TrainedFolder, folder_part
from effort_finetune.data.host_listing import FOLDER, listing_verdict
from effort_finetune.data.index import load_index, with_own_labels
from effort_finetune.data.overlap import split_overlap
from effort_finetune.data.source_container import sources_of_test
from effort_finetune.data.sources import FileSource, FrameSource, open_source

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host


@dataclass(frozen=True)
class DatasetPart:
    """One dataset of a split.

    Attributes:
        label: What it is called in results.
        collected: Its rows, and what they leave out.
        source: Where its pictures are read.
        fit: How a picture becomes a square crop; None for crops of an index.
        also_in: What it shares with its other splits.
        folder: What :meth:`FolderPart.describe` says; None for a dataset of the index.
        host_listing: Whether the host's class lists the same rows.
        recipe: How its pictures were cut; None where nobody knows.
        warnings: What a number on it has to say.
        sources: How well the files that its crops were made of tell the classes apart, where that is known.
    """

    label: str
    collected: Collected
    source: FrameSource
    fit: Fit | None
    also_in: dict[str, Any]
    folder: dict[str, Any] | None
    host_listing: str
    recipe: CropRecipe | None
    warnings: tuple[str, ...] = ()
    sources: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """For the protocol; JSON types only."""
        return {
            **self.collected.facts(),
            "path_rule": self.source.rule,
            "also_in": self.also_in,
            "host_listing": self.host_listing,
            "fit": self.fit,
            "crop_recipe": None if self.recipe is None else self.recipe.to_dict(),
            "warnings": list(self.warnings),
            **({} if self.folder is None else {"folder": self.folder}),
            **self.sources,
        }


def open_part(
    host: Host, settings: Settings, name: str, label: str, split: str, trained: Sequence[TrainedFolder]
) -> DatasetPart:
    """Opens one dataset of a split.

    Args:
        host: Owner of the index and the LMDBs.
        settings: Resolved settings.
        name: The dataset, a name or a path.
        label: What it is called in results.
        split: ``train``, ``val`` or ``test``.
        trained: Folders that the model is trained on.

    Raises:
        UserError: As :func:`~effort_finetune.data.frames.open_frames`.
    """
    asked = settings.frame_num.test if split == "test" else settings.frame_num.train
    folder = folder_of(host, settings, name)
    if folder is None:
        index = load_index(host, settings, name)
        settings = with_own_labels(settings, index)
        part = collect_rows(settings, index, split=split, asked=asked, sampling=settings.frame_sampling)
        source = open_source(host, settings, name, [row.path for row in part.rows])
        listing = listing_verdict(host, settings, index, split=split, asked=asked)
        shared = split_overlap(index, split)
        own: Fit | None = "native" if settings.fit == "native" else None  # crops are squares already
        sources, told = sources_of_test(index, part.rows, split, seed=settings.manualSeed)
        remarks = (*part.remarks(split), *told)
        return DatasetPart(label, part, source, own, shared, None, listing, index.recipe, remarks, sources)
    chosen = folder_part(folder, settings, split=split, trained=trained)
    rows = chosen.rows(label, split, asked=asked, sampling=settings.frame_sampling)
    part = Collected(
        rows,
        sum(len(sample.frames) for sample in chosen.samples),
        len(chosen.samples),
        sum(len(sample.frames) < asked for sample in chosen.samples if not sample.still),
    )
    fit: Fit = settings.fit or "crop"
    source = FileSource(os.path.realpath(folder), "as_listed")
    recipe = folder_recipe(settings)
    return DatasetPart(label, part, source, fit, {}, chosen.describe(), FOLDER, recipe, chosen.warnings)


def folder_recipe(settings: Settings) -> CropRecipe:
    """How the pictures of a folder are read: what ``faces`` says they show, side and fit."""
    fit: Fit = settings.fit or "crop"
    return CropRecipe(settings.faces, settings.resolution if fit == "native" else CROP_SIDE, fit=fit)
