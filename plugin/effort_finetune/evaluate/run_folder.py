"""A folder that is used again: what an earlier run left in it is archived, so that it holds one run.

The folder may be a user's own and full. Only files that bear our mark are moved; one of somebody else under a
name that a run writes stops the run before it begins. A log of somebody else's stays and is written on below.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from effort_finetune.core.errors import UserError
from effort_finetune.evaluate.score_file import COLUMNS
from effort_finetune.weights.vision_config import of_state
from effort_finetune.weights.wrappers import OWN_FORMAT

#: What a measurement writes beside its score files.
MEASUREMENT_FILES = ("results.json", "report.html", "settings.yaml", "evaluation.log")
SCORES_FOLDER = "scores"
SETTINGS_MARK = "# Resolved settings of"
REPORT_MARK = '<meta name="generator" content="effort-finetune">'
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +command: ")
_READ = 1 << 16  # bytes of a text file that are looked at


def archive(folder: Path, names: Sequence[str]) -> Path | None:
    """Moves an earlier run's files into ``earlier_<n>`` of the same folder; deletes nothing.

    Score files always go along; a CSV in ``scores/`` that is none of ours stays where it is.

    Args:
        folder: The folder that a new run is about to write.
        names: Files to move, as glob patterns within the folder.

    Returns:
        Where they are now; ``None`` if there were none.

    Raises:
        UserError: If a file of one of these names, but for a log, is not ours; nothing has been moved then.
    """
    files = [path for name in names for path in sorted(folder.glob(name)) if path.is_file()]
    others = [path for path in files if not bears_our_mark(path)]
    files = [path for path in files if path not in others]
    foreign = [path.name for path in others if path.suffix != ".log"]
    if foreign:
        raise UserError(
            f"output folder {folder}",
            got=f"{', '.join(foreign)}, not written by effort-finetune",
            expected="a folder in which these names are free",
            next_step="choose another one with --output_dir, or move these files away",
        )
    scores = list(score_files(folder))
    if not (files or scores):
        return None
    # Whoever is killed here leaves the others' witnesses in place: they go last.
    files.sort(key=lambda path: (path.name in ("results.json", "settings.yaml"), path.suffix == ".log"))
    target = _next_folder(folder)
    for path in (*files, *scores):
        moved = target / path.relative_to(folder)
        moved.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, moved)
    if scores and not any((folder / SCORES_FOLDER).iterdir()) and not (folder / SCORES_FOLDER).is_symlink():
        (folder / SCORES_FOLDER).rmdir()
    return target


def score_files(folder: Path) -> Iterator[Path]:
    """Yields the score files of a run folder, which their first line tells from other CSV files."""
    header = ",".join(COLUMNS).encode()
    for path in sorted((folder / SCORES_FOLDER).glob("*.csv")):
        with path.open("rb") as stream:
            if stream.readline().strip() == header:
                yield path


def bears_our_mark(path: Path) -> bool:
    """Tells whether one of our runs wrote a file that has one of our names.

    An empty file holds nothing of anybody: a full disk leaves such logs.
    """
    return path.stat().st_size == 0 or _MARKS.get(path.suffix, _beside_our_settings)(path)


def _is_results(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, Mapping) and {"schema_version", "kind"} <= document.keys()


def _is_text_of_ours(path: Path) -> bool:
    head = _head(path)
    # Version 1 wrote no mark into its reports and into the settings of an evaluation.
    marked = head.startswith(SETTINGS_MARK) or REPORT_MARK in head
    return marked or _is_results(path.with_name("results.json"))


def _is_log(path: Path) -> bool:
    return _LOG_LINE.match(_head(path)) is not None


def _beside_our_settings(path: Path) -> bool:
    """Event files say nothing of who wrote them; ours lie beside our settings or log."""
    folder = path.parent
    return _head(folder / "settings.yaml").startswith(SETTINGS_MARK) or any(
        map(_is_log, folder.glob("*.log"))
    )


def _is_checkpoint(path: Path) -> bool:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch raises half a dozen types for a file it cannot read
        return False
    stated = isinstance(content, Mapping) and str(content.get("format", "")).startswith(OWN_FORMAT)
    return stated or bool(of_state(content, str(path)))


def _head(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_READ).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _next_folder(folder: Path) -> Path:
    number = 1
    while (target := folder / f"earlier_{number}").exists():
        number += 1
    target.mkdir()
    return target


_MARKS: Mapping[str, Callable[[Path], bool]] = {
    ".json": _is_results,
    ".html": _is_text_of_ours,
    ".yaml": _is_text_of_ours,
    ".log": _is_log,
    ".pth": _is_checkpoint,
}
