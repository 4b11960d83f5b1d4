"""Scores of any detector from a CSV of any program: which column is what, which rows count."""

from __future__ import annotations

import csv
import fnmatch
import gzip
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from effort_finetune.core.errors import UserError, did_you_mean
from effort_finetune.core.escaping import from_csv, visible
from effort_finetune.core.files import require_regular

_WORDS = {"0": 0, "real": 0, "1": 1, "fake": 1}
_NO_SCORE = ("", "nan", "na", "n/a", "none", "null")
_GZIP = b"\x1f\x8b"
_LINE = 1 << 20
MOST_ROWS = 50_000_000


class ForeignRow(NamedTuple):
    """One row that counts.

    Attributes:
        line: Its line in the file.
        dataset: Of the dataset column, ``""`` without one.
        group: Of the group column, ``""`` without one.
        video: What is one sample at the level of videos.
        frame: The frame's own name.
        label: 0 real, 1 fake.
        prob: Probability of fake; ``None`` where the file has no score.
    """

    line: int
    dataset: str
    group: str
    video: str
    frame: str
    label: int
    prob: float | None


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are called; of those that are left out, our own names count where present.

    Attributes:
        prob: Probability of fake, or log-odds with ``logits``.
        label: ``0``/``real`` or ``1``/``fake``, or the words of ``real`` and ``fake``.
        video: Columns that together name a video; ``()`` takes ``video``, else each row is a sample.
        video_pattern: What of the video's name counts: the first group, else the whole match.
        frame: Name of a frame.
        group: Generator or manipulation.
        dataset: Dataset of the row.
        real: Further words for real.
        fake: Further words for fake.
        logits: Whether ``prob`` holds log-odds.
        where: Column to the value that a row must have there (``*`` and ``?`` match as in file names).
    """

    prob: str = "prob"
    label: str = "label"
    video: tuple[str, ...] = ()
    video_pattern: str | None = None
    frame: str | None = None
    group: str | None = None
    dataset: str | None = None
    real: tuple[str, ...] = ()
    fake: tuple[str, ...] = ()
    logits: bool = False
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignScores:
    """The rows of a file.

    Attributes:
        rows: Those that count, in the file's order.
        left_out: Rows that ``where`` left out.
    """

    rows: tuple[ForeignRow, ...]
    left_out: int


def header_of(path: Path) -> list[str]:
    """Returns the names of a file's columns.

    Raises:
        UserError: If it cannot be read, or has none.
    """
    with _opened(path) as reader:
        return list(reader.fieldnames or ())


def read_foreign(path: Path, columns: Columns) -> ForeignScores:
    """Reads a CSV, plain or gzip, one row a frame, picture or video.

    Args:
        path: The file.
        columns: What its columns are called.

    Raises:
        UserError: If a column is missing, a row holds something else (its line is named), a video is real and
            fake, or a frame is listed twice.
    """
    what = f"score file {visible(path)}"
    with _opened(path) as reader:
        known = _known(columns, list(reader.fieldnames or ()), what)
        pattern = _pattern(columns.video_pattern)
        words = {**_WORDS, **{w.lower(): 0 for w in columns.real}, **{w.lower(): 1 for w in columns.fake}}
        rows, left_out = [], 0
        for number, cells in enumerate(reader, start=1):
            line = f"{what}, line {reader.line_num}"
            if None in cells.values() or None in cells:
                raise UserError(line, got="another number of cells than the header", expected=len(cells))
            if number > MOST_ROWS:
                raise UserError(what, got=f"more than {MOST_ROWS} rows", expected="a file in parts")
            if not all(fnmatch.fnmatchcase(cells[key], value) for key, value in known.where.items()):
                left_out += 1
                continue
            rows.append(_row(cells, known, pattern, words, number, line, reader.line_num))
    if not rows:
        raise UserError(what, got=f"no row ({left_out} left out by --where)", expected="scores")
    _check(rows, what)
    return ForeignScores(tuple(rows), left_out)


class _opened:
    """The reader of a file, every way in which reading can fail turned into one line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> csv.DictReader[str]:
        try:
            require_regular(self.path)
            with self.path.open("rb") as stream:
                packed = stream.read(2) == _GZIP
            raw: Any = gzip.open(self.path, "rb") if packed else self.path.open("rb")
            self._text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            # A line without end is cut, and its cell is then too long for the csv module.
            reader = csv.DictReader(iter(lambda: self._text.readline(_LINE), ""))
            reader.fieldnames  # noqa: B018  reads the first line
        except Exception as error:
            raise self._refusal(error) from error
        return reader

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._text.close()
        if isinstance(error, (OSError, EOFError, UnicodeDecodeError, csv.Error)):
            raise self._refusal(error) from error

    def _refusal(self, error: BaseException) -> UserError:
        reason = getattr(error, "strerror", None) or error
        return UserError(
            f"score file {visible(self.path)}", got=visible(reason), expected="a CSV with a header"
        )


def _known(columns: Columns, header: Sequence[str], what: str) -> Columns:
    """Checks the columns that are named, and takes those of our own names that are there."""
    named = [columns.prob, columns.label, *columns.video, *columns.where]
    named += [name for name in (columns.frame, columns.group, columns.dataset) if name is not None]
    for name in named:
        if name not in header:
            raise UserError(
                what, got=f"no column {visible(repr(name))}", expected=f"one of {visible(', '.join(header))}",
                next_step=did_you_mean(name, header) or "name them: --video_column, --label_column, ...",
            )  # fmt: skip
    own = {name: name for name in ("frame", "group", "dataset") if name in header}
    video = columns.video or (("video",) if "video" in header else ())
    frame = columns.frame or own.get("frame")
    return Columns(
        columns.prob, columns.label, video, columns.video_pattern, frame, columns.group or own.get("group"),
        columns.dataset or own.get("dataset"), columns.real, columns.fake, columns.logits, columns.where,
    )  # fmt: skip


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UserError(
            "--video_pattern", got=f"{text!r} ({error})", expected="a regular expression"
        ) from error


def _row(
    cells: Mapping[str, str],
    known: Columns,
    pattern: re.Pattern[str] | None,
    words: Mapping[str, int],
    number: int,
    line: str,
    line_number: int,
) -> ForeignRow:
    label = words.get(cells[known.label].strip().lower())
    if label is None:
        raise UserError(
            line, got=f"label {visible(repr(cells[known.label]))}", expected="0, 1, real or fake",
            next_step="say what the words mean: --real WORDS --fake WORDS",
        )  # fmt: skip
    frame = from_csv(cells[known.frame]) if known.frame else ""
    names = [from_csv(cells[name]) for name in known.video] or [frame or f"row {number}"]
    video = "/".join(names)
    if pattern is not None:
        found = pattern.search(video)
        if found is None:
            raise UserError(
                line, got=f"{visible(video)}, which --video_pattern does not match", expected="a video's name"
            )
        video = found[1] if pattern.groups else found[0]
    group = from_csv(cells[known.group]) if known.group else ""
    dataset = from_csv(cells[known.dataset]) if known.dataset else ""
    return ForeignRow(line_number, dataset, group, video, frame, label, _prob(cells[known.prob], known, line))


def _prob(cell: str, known: Columns, line: str) -> float | None:
    text = cell.strip().lower()
    if text in _NO_SCORE:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if known.logits and not math.isnan(value):
        return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
    if not 0 <= value <= 1:
        raise UserError(
            line, got=f"score {visible(repr(cell))}", expected="a probability of fake from 0 to 1",
            next_step="--logits, if these are log-odds",
        )  # fmt: skip
    return value


def _check(rows: Sequence[ForeignRow], what: str) -> None:
    labels: dict[tuple[str, str], ForeignRow] = {}
    frames: dict[tuple[str, str, str], int] = {}
    for row in rows:
        first = labels.setdefault((row.dataset, row.video), row)
        if first.label != row.label:
            raise UserError(
                what, got=f"video {visible(row.video)} as real and as fake (lines {first.line}, {row.line})",
                expected="one label", next_step="name it by more columns: --video_column A B",
            )  # fmt: skip
        if row.frame and frames.setdefault((row.dataset, row.video, row.frame), row.line) != row.line:
            raise UserError(
                what, got=f"frame {visible(row.frame)} of {visible(row.video)} twice (line {row.line})",
                expected="each frame once",
            )  # fmt: skip


def by_dataset(rows: Sequence[ForeignRow], default: str) -> Iterator[tuple[str, list[ForeignRow]]]:
    """Yields each dataset with its rows, in order of first appearance.

    Args:
        rows: Of a file.
        default: What a row without a dataset belongs to.
    """
    parts: dict[str, list[ForeignRow]] = {}
    for row in rows:
        parts.setdefault(row.dataset or default, []).append(row)
    yield from parts.items()
