"""``crops.json`` beside the crops: what they were made of, how, and what was dropped.

While a run goes on, each finished source is a line of ``.crops/<part>.jsonl``, written before its crops are
moved into place, so that a run that is killed at any moment loses neither crops nor counts.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from effort_finetune.core.crop_recipe import CropRecipe
from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.files import write_json
from effort_finetune.core.strict_json import read_json
from effort_finetune.data.class_words import CLASSES
from effort_finetune.data.container import Facts
from effort_finetune.data.source_container import checked_facts

NAME = "crops.json"
JOURNALS = ".crops"
VERSION = 2
_TEXTS = ("title", "root", "place", "kind", "look", "sha256", "shape")
_COUNTS = ("frames", "crops", "unreadable", "no_face", "lost", "several")


@dataclass(frozen=True)
class SourceReport:
    """What became of one video or loose picture.

    Attributes:
        title: Class and name in the dataset, ``real/0001``.
        root: The folder that was given, with all folders above.
        place: The file or folder below it.
        kind: ``video``, ``frames`` or ``picture``.
        split: What the source's folders say; None otherwise.
        look: Hash of names, sizes and times of the source.
        sha256: Hash of its content.
        shape: Hash of the options that shape its crops.
        frames: Frames taken of it.
        crops: Crops written.
        unreadable: Frames that cannot be decoded.
        no_face: Frames without a face.
        lost: Crops in which no face was found again.
        several: Frames with more than one face.
        reasons: Why frames cannot be decoded, each with a count.
        error: Why the whole source could not be read.
        container: What the file itself tells (:mod:`source_container`), of frames the first; None where it
            cannot be read.
    """

    title: str
    root: str
    place: str
    kind: str
    split: str | None
    look: str
    sha256: str
    shape: str
    frames: int = 0
    crops: int = 0
    unreadable: int = 0
    no_face: int = 0
    lost: int = 0
    several: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    container: Facts | None = None

    def places(self, target: Path) -> tuple[Path, Path]:
        """Folders of its crops and of its landmarks."""
        label, _, name = self.title.partition("/")
        return target / label / "frames" / name, target / label / "landmarks" / name

    def is_there(self, target: Path) -> bool:
        """Tells whether all its crops are still in place."""
        crops, _ = self.places(target)
        return self.crops == (sum(1 for _ in crops.glob("*.png")) if crops.is_dir() else 0)


@dataclass(frozen=True)
class CropRecord:
    """The content of ``crops.json`` and of what running or killed runs left beside it.

    Attributes:
        shaping: The options that shape the crops.
        recipe: How they were cut; None in a record of another version.
        reports: By the source's title.
        skipped: Files that were not taken, by reason.
        licence: Of the finder; None where no face was looked for.
    """

    shaping: Mapping[str, Any]
    recipe: CropRecipe | None
    reports: Mapping[str, SourceReport]
    skipped: Mapping[str, int]
    licence: str | None


def read_record(target: Path) -> CropRecord | None:
    """Reads ``crops.json`` and the journals of a dataset's folder; None where there is neither.

    Raises:
        UserError: One of them is damaged.
    """
    path = target / NAME
    trees: list[Mapping[str, Any]] = []
    if path.is_file():
        trees.append(_parse(path))
    for journal in sorted((target / JOURNALS).glob("*.jsonl")):
        trees += _lines(journal)
    if not trees:
        return None
    shaping: dict[str, Any] = {}
    licence: str | None = None
    skipped: dict[str, int] = {}
    reports: dict[str, SourceReport] = {}
    for tree in trees:
        if isinstance(tree.get("options"), dict):
            shaping, licence = tree["options"], tree.get("licence")
            skipped = tree["skipped"] if isinstance(tree.get("skipped"), dict) else {}
        for entry in tree["sources"] if isinstance(tree.get("sources"), list) else ():
            if isinstance(entry, dict) and "removed" in entry:
                reports.pop(str(entry["removed"]), None)
            elif (report := _report(entry)) is not None:
                reports[report.title] = report
    return CropRecord(shaping, CropRecipe.from_dict(shaping), reports, skipped, licence)


def write_record(
    target: Path, shaping: Mapping[str, Any], licence: str | None, reports: Iterable[SourceReport],
    skipped: Mapping[str, int],
) -> Path:  # fmt: skip
    """Writes ``crops.json`` and removes the journals, whose content it holds.

    Args:
        target: The dataset's folder.
        shaping: The options that shape the crops.
        licence: Of the finder.
        reports: Of all sources.
        skipped: Files that were not taken, by reason.
    """
    tree = {
        "version": VERSION,
        "options": dict(shaping),
        "licence": licence,
        "skipped": dict(skipped),
        "sources": [asdict(report) for report in reports],
    }
    path = write_json(target / NAME, tree)
    shutil.rmtree(target / JOURNALS, ignore_errors=True)
    return path


class Journal:
    """Lines of what a run has finished; a context manager.

    Args:
        target: The dataset's folder.
        part: Name of the run's share of the sources.
        shaping: The options that shape the crops.
        licence: Of the finder.
        skipped: Files that were not taken, by reason.
    """

    def __init__(
        self,
        target: Path,
        part: str,
        shaping: Mapping[str, Any],
        licence: str | None,
        skipped: Mapping[str, int],
    ) -> None:
        (target / JOURNALS).mkdir(parents=True, exist_ok=True)
        self._stream = (target / JOURNALS / f"{part}.jsonl").open("a", encoding="utf-8")
        self._stream.write("\n")  # ends a line that a killed run has left open
        self._write({"options": dict(shaping), "licence": licence, "skipped": dict(skipped)})

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def finished(self, report: SourceReport) -> None:
        """A source is done; its crops are moved into place next."""
        self._write({"sources": [asdict(report)]})

    def removed(self, title: str) -> None:
        """The crops of a source are taken away next."""
        self._write({"sources": [{"removed": title}]})

    def _write(self, tree: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(tree, ensure_ascii=True) + "\n")
        self._stream.flush()


def _lines(journal: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a journal; one that was cut off tells of a source that is not finished."""
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            tree = json.loads(line)
            if isinstance(tree, dict):
                yield tree


def _parse(path: Path) -> Mapping[str, Any]:
    try:
        tree = read_json(path)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} is damaged", got=visible(error), expected="what prepare wrote",
            next_step="remove the file: the crops are then made again",
        ) from error  # fmt: skip
    return tree if isinstance(tree, dict) else {}


def _report(entry: Any) -> SourceReport | None:
    """A report of this version; None for what another one wrote: its crops are made again.

    The title names folders that prepare replaces and removes, so it has to lie inside the dataset.
    """
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in _TEXTS):
        return None
    known = {
        name: entry[name]
        for name in (*_TEXTS, *_COUNTS, "split", "reasons", "error", "container")
        if name in entry
    }
    label, _, name = known["title"].partition("/")
    inside = label in CLASSES and name and not {"", ".", ".."} & set(re.split(r"[/\\]", name))
    counts = all(isinstance(known.get(name, 0), int) for name in _COUNTS)
    reasons = known.get("reasons", {})
    plain = isinstance(reasons, dict) and all(isinstance(count, int) for count in reasons.values())
    texts = all(isinstance(known.get(name), (str, type(None))) for name in ("split", "error"))
    known.setdefault("split", None)
    known["container"] = checked_facts(known.get("container"))
    return SourceReport(**known) if inside and counts and plain and texts else None
