"""Published numbers, from data files that state where each is from and by which protocol it was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effort_finetune.core.errors import UserError, did_you_mean
from effort_finetune.core.resources import root
from effort_finetune.core.strict_yaml import read_yaml


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(_Part):
    """Where numbers are from.

    Attributes:
        title: The work.
        url: Its address.
        place: The table or section.
        second_hand: Whether somebody else quoted them.
    """

    title: str
    url: str
    place: str
    second_hand: bool = False


class Block(_Part):
    """Numbers of one metric by one protocol.

    Attributes:
        metric: ``<level>_<metric>`` as in results files.
        source: Where they are from.
        protocol: What is known of how they were made; what is not known is said to be so.
        rows: Detector to dataset to value.
    """

    metric: str
    source: Source
    protocol: dict[str, str] = Field(min_length=1)
    rows: dict[str, dict[str, float]] = Field(min_length=1)


class PublishedFile(_Part):
    """A file of published numbers.

    Attributes:
        title: What it holds.
        datasets: Name in the publication to further names of the same dataset.
        blocks: The numbers.
    """

    title: str
    datasets: dict[str, tuple[str, ...]] = {}
    blocks: tuple[Block, ...] = Field(min_length=1)

    def value(self, row: Mapping[str, float], dataset: str) -> float | None:
        """Returns the number of a dataset, whichever of its names it is asked by."""
        asked = dataset.lower()
        for name, number in row.items():
            if asked in {name.lower(), *(other.lower() for other in self.datasets.get(name, ()))}:
                return number
        return None


def published_files() -> dict[str, Path]:
    """Returns the files that ship, by name."""
    return {path.stem: path for path in sorted((root() / "configs" / "published").glob("*.yaml"))}


def read_published(name: str, beside: Path) -> PublishedFile:
    """Reads a file of published numbers.

    Args:
        name: Of one that ships, or a path relative to ``beside``.
        beside: Folder of the file that names it.

    Raises:
        UserError: If there is none, or it holds something else.
    """
    files = published_files()
    path = files.get(name, beside / name)
    if name not in files and not path.is_file():
        raise UserError(
            "published", got=repr(name), expected=f"a file, or one of {', '.join(files)}",
            next_step=did_you_mean(name, files),
        )  # fmt: skip
    try:
        return PublishedFile.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {place}", got=repr(first["input"])[:200], expected=first["msg"]) from None


def rows_of(found: PublishedFile, metric: str) -> Iterator[tuple[str, Block, Mapping[str, float]]]:
    """Yields detector, block and numbers of one metric."""
    for block in found.blocks:
        if block.metric == metric:
            for detector, row in block.rows.items():
                yield detector, block, row


def as_document(found: PublishedFile, detector: str, datasets: Iterable[str]) -> dict[str, Any]:
    """Returns what was published of a detector in the shape of a results file; it states no protocol of ours.

    Args:
        found: The file.
        detector: Its row.
        datasets: The datasets wanted, by any of their names.

    Raises:
        UserError: If the file has no such row.
    """
    rows = sorted({row for block in found.blocks for row in block.rows})
    if detector not in rows:
        raise UserError(
            "--published_row", got=repr(detector), expected=f"one of {', '.join(rows)}",
            next_step=did_you_mean(detector, rows),
        )  # fmt: skip
    blocks: dict[str, dict[str, dict[str, float]]] = {}
    for name in datasets:
        for block in found.blocks:
            level, _, metric = block.metric.partition("_")
            value = found.value(block.rows.get(detector, {}), name)
            if value is not None:
                own = blocks.setdefault(name, {"frame": {}, "video": {}})
                own[level].setdefault(metric, value)
    return {"datasets": blocks, "protocol": {}, "checkpoint": None, "computed_by": found.title}
