"""A folder that is used again: what an earlier run left in it is moved aside, so that it holds one run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from effort_finetune.evaluate.score_file import COLUMNS

#: What a measurement writes beside its score files.
MEASUREMENT_FILES = ("results.json", "report.html", "settings.yaml", "evaluation.log")
SCORES_FOLDER = "scores"


def set_aside(folder: Path, names: Sequence[str]) -> Path | None:
    """Moves an earlier run's files into ``earlier_<n>`` of the same folder; deletes nothing.

    Score files always go along; a CSV in ``scores/`` that is none of ours stays where it is.

    Args:
        folder: The folder that a new run is about to write.
        names: Files to move, as glob patterns within the folder.

    Returns:
        Where they are now; ``None`` if there were none.
    """
    files = [path for name in names for path in sorted(folder.glob(name)) if path.is_file()]
    scores = list(score_files(folder))
    if not (files or scores):
        return None
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


def _next_folder(folder: Path) -> Path:
    number = 1
    while (target := folder / f"earlier_{number}").exists():
        number += 1
    target.mkdir()
    return target
