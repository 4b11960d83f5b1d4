"""Checks a folder of pictures as a dataset: what is taken, who is in it, what repeats, what tells classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effort_finetune.core.counted import counted
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.data.confounds import ConfoundScore, container_score, statistics_score
from effort_finetune.data.findings import Finding
from effort_finetune.data.folder_division import FolderContent, read_folder
from effort_finetune.data.folder_options import FolderOptions
from effort_finetune.data.look_cache import looks_of
from effort_finetune.data.perceptual_hash import near_pairs

if TYPE_CHECKING:
    from effort_finetune.config import Settings


def folder_findings(
    folder: Path, settings: Settings
) -> tuple[FolderContent | None, list[Finding], dict[str, Any]]:
    """Everything that can be said of a folder as a dataset.

    Args:
        folder: The folder.
        settings: How it would be read.

    Returns:
        Its content (None where it is no dataset), the findings, and the two confound scores.
    """
    try:
        content = read_folder(folder, FolderOptions.of(settings))
    except UserError as error:
        got = f" ({error.got})" if error.got is not None else ""
        return None, [Finding("error", "folder", None, 1, f"{error.what}{got}", error.next_step or "")], {}
    findings = [*_taken(content), *_classes(content), *_near_duplicates(content)]
    paths = [(path, s) for s in content.samples for path in s.frames]

    def read(place: int) -> bytes | None:
        try:
            return (folder / paths[place][0]).read_bytes()
        except OSError:
            return None

    labels, videos = [int(s.label == "fake") for _, s in paths], [s.place for _, s in paths]
    container = container_score(read, labels, videos, seed=settings.manualSeed)
    statistics = statistics_score(read, labels, videos, seed=settings.manualSeed)
    findings += confound_findings(container)
    return content, findings, {"container": container.to_dict(), "statistics": statistics.to_dict()}


def confound_findings(score: ConfoundScore) -> Iterator[Finding]:
    """A warning where the files alone tell the classes apart."""
    if score.warns:
        yield Finding(
            "warning", "container_confound", None, score.pictures, score.sentence(),
            "save both classes in the same way: one format, size and quality",
        )  # fmt: skip


def _taken(content: FolderContent) -> Iterator[Finding]:
    for reason, count in content.sampled.skipped.items():
        if reason != "hidden":
            yield Finding(
                "note",
                "not_taken",
                None,
                count,
                f"{count} not taken: {reason}",
                "nothing, unless meant",
            )
    for note in content.sampled.notes:
        yield Finding("warning", "crossed_classes", None, 1, note, "make sure that the inner folder is right")
    persons = content.people()[1]
    yield Finding(
        "note", "persons", None, persons.persons,
        f"{counted(len(content.samples), 'sample')}, {persons.line()}, the largest of {persons.largest}",
        "give --identity PATTERN where names of clips tell persons otherwise",
    )  # fmt: skip


def _classes(content: FolderContent) -> Iterator[Finding]:
    splits: list[str | None] = [*sorted(content.own_splits)] or [None]
    for split in splits:
        counts = Counter(s.label for s in content.samples if s.split == split)
        if len(counts) == 1:
            only = next(iter(counts))
            yield Finding(
                "warning", "one_class", split, counts[only],
                f"all {counts[only]} samples are {only}: no AUC can be computed",
                "nothing where other datasets of the run have the other class",
            )  # fmt: skip


def _near_duplicates(content: FolderContent) -> Iterator[Finding]:
    """Pictures of one split that look like one of another; where the folder is divided they stay together."""
    if not content.own_splits:
        return
    folder = content.listing.folder
    split_of = {path: (s.split or "", s.place) for s in content.samples for path in s.frames}
    pictures = [picture for picture in content.listing.pictures if picture.path in split_of]
    found = looks_of(folder, pictures, desc=f"looks of {visible(folder.name, limit=40)}")
    pairs: dict[tuple[str, str], list[str]] = {}
    for first, second in near_pairs([seen for _, seen in found]):
        paths = pictures[first].path, pictures[second].path
        splits = sorted({split_of[path][0] for path in paths})
        if len(splits) == 2:
            pairs.setdefault((splits[0], splits[1]), []).append(" = ".join(map(visible, paths)))
    for (one, other), items in pairs.items():
        yield Finding(
            "error", "near_duplicate", other, len(items),
            f"{counted(len(items), f'picture of {other} looks', f'pictures of {other} look')} "
            f"like one of {one}: results on it do not measure "
            "generalisation",
            "take them out of one of the two splits",
            items,
        )  # fmt: skip
