"""Running what a leaderboard lacks: trainings and cells one after the other, by finetune and evaluate."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.interrupt import InterruptGuard
from effort_finetune.data.dataset_name import check_names
from effort_finetune.evaluate.compared_runs import read_run
from effort_finetune.evaluate.kept_model import KeptModel
from effort_finetune.studies.board_cells import (
    Board,
    Cell,
    Training,
    cell_folder,
    cells_of,
    complete,
    measuring,
    training_of,
    weights_of,
)
from effort_finetune.studies.board_file import SEED_MARK, DetectorEntry
from effort_finetune.studies.published import read_published
from effort_finetune.weights.first_look import look_at

Shard = tuple[int, int]


@dataclass
class Group:
    """Cells that one training serves; of detectors that are not trained, one cell.

    Attributes:
        training: The training; ``None`` without.
        cells: What is measured with its weights.
    """

    training: Training | None
    cells: list[Cell] = field(default_factory=list)


def planned(board: Board) -> list[Group]:
    """Returns what there is to run, cells with imported scores left out, after looking for every mistake.

    Raises:
        UserError: If a setting, dataset or file of any detector is wrong; nothing has been run then.
    """
    for name in board.asked.published:
        read_published(name, board.file.resolve().parent)
    groups: dict[tuple[str, int | None, str | None], Group] = {}
    for cell in cells_of(board.asked):
        if cell.entry.scores is not None:
            read_run(imported_path(cell.entry, cell.seed), cell.entry.name)
            continue
        trained = cell.entry.finetune is not None
        key = (cell.entry.name, cell.seed, None if trained else cell.dataset)
        if key not in groups:
            groups[key] = Group(_checked_training(board, cell) if trained else None)
        if not trained and (weights := weights_of(cell.entry, cell.seed)) is not None:
            look_at(weights)
        check_names(board.host, measuring(board, cell), which=("test_dataset",))
        groups[key].cells.append(cell)
    return list(groups.values())


def share_of(groups: Sequence[Group], shard: Shard) -> list[Group]:
    """Returns the I-th of N shares; a training and what is measured with it stay together."""
    number, count = shard
    return [group for position, group in enumerate(groups) if position % count == number - 1]


def missing_of(board: Board, group: Group) -> tuple[bool, list[Cell]]:
    """Returns whether a group's training is to be run, and its cells that are to be measured."""
    if group.training is not None and not group.training.done():
        return True, list(group.cells)
    return False, [
        cell for cell in group.cells if complete(folder_of_cell(board, cell, group.training)) is None
    ]


def folder_of_cell(board: Board, cell: Cell, training: Training | None) -> Path:
    """Returns where a cell's results are, or will be once its training is done."""
    weights = training.weights if training is not None else weights_of(cell.entry, cell.seed)
    assert weights is not None, "an entry without weights is trained or imported"
    return cell_folder(board, cell, weights)


def run_missing(
    board: Board, groups: Sequence[Group], *, command: Sequence[str], say: Callable[[str], None] = print
) -> list[str]:
    """Runs every training and cell that is not there yet.

    A run that fails does not keep the others from running. A signal ends all, after the run that it hit has
    saved what there is; the same command goes on from there.

    Args:
        board: The leaderboard.
        groups: What is to be there.
        command: The command line, for the records.
        say: Gets a line for each run.

    Returns:
        A line for each run that failed.

    Raises:
        RunFailure: If a signal asked to stop.
    """
    todo = [(group, *missing_of(board, group)) for group in groups]
    count = sum(train + len(cells) for _, train, cells in todo)
    clock = _Clock(count, say)
    failures: list[str] = []
    kept = KeptModel()
    with InterruptGuard() as guard:
        for group, train, cells in todo:
            if train and group.training is not None:
                kept.drop()
                if not clock.run(
                    str(group.training), _training_job(board, group.training, command), failures
                ):
                    clock.skip(len(cells))
                    cells = []
                _stop(guard)
            for cell in cells:
                if complete(folder_of_cell(board, cell, group.training)) is not None:
                    clock.skip(1)  # of the same weights as before
                    continue
                clock.run(str(cell), _cell_job(board, cell, group.training, command, kept), failures)
                _stop(guard)
    return failures


def _stop(guard: InterruptGuard) -> None:
    if guard.requested:
        raise RunFailure(
            f"stopped by {guard.reason}; what is done is kept, the same command goes on from there"
        )


class _Clock:
    """Numbers the runs, says what each took and what the others will take."""

    def __init__(self, count: int, say: Callable[[str], None]) -> None:
        self.count, self.done, self.say = count, 0, say
        self.seconds = 0.0

    def skip(self, runs: int) -> None:
        self.count -= runs

    def run(self, what: str, job: Callable[[], str], failures: list[str]) -> bool:
        """Runs one job; a failure is noted, and false returned."""
        start = time.perf_counter()
        failed = None
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                found = job()
        except (RunFailure, UserError) as error:
            # The way to go on is this very command, not that of the single run.
            failed = found = str(error).partition("; go on with")[0]
            failures.append(f"{what}: {failed}")
        self.done += 1
        self.seconds += time.perf_counter() - start
        left = self.seconds / self.done * (self.count - self.done)
        rest = f", about {duration(left)} left" if self.done < self.count else ""
        word = "failed: " if failed else ""
        took = duration(time.perf_counter() - start)
        self.say(f"[{self.done}/{self.count}] {what}: {word}{found} ({took}{rest})")
        return failed is None


def duration(seconds: float) -> str:
    """Returns seconds for people: ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _training_job(board: Board, training: Training, command: Sequence[str]) -> Callable[[], str]:
    def job() -> str:
        from effort_finetune.train.finetuning import finetune
        from effort_finetune.weights.run_state import LAST_NAME

        settings = training.settings
        if (training.folder / LAST_NAME).is_file():
            settings = settings.changed(resume=str(training.folder))
        outcome = finetune(settings, board.host, command=command)
        return f"weights {outcome.best_path}"

    return job


def _cell_job(
    board: Board, cell: Cell, training: Training | None, command: Sequence[str], kept: KeptModel
) -> Callable[[], str]:
    def job() -> str:
        from effort_finetune.evaluate.evaluation import evaluate

        weights = training.weights if training is not None else weights_of(cell.entry, cell.seed)
        path = evaluate(
            measuring(board, cell),
            board.host,
            weights=weights,
            output_dir=folder_of_cell(board, cell, training),
            command=command,
            kept=kept,
        )
        run = read_run(path, cell.entry.name)
        level, _, metric = board.asked.declared.partition("_")
        value = run.value(board.labels[cell.dataset], level, metric)
        return f"{board.asked.declared} {'-' if value is None else f'{value:.4f}'}"

    return job


def _checked_training(board: Board, cell: Cell) -> Training:
    assert cell.seed is not None, "a detector that is trained has seeds"
    training = training_of(board, cell.entry, cell.seed)
    if training.settings.pretrained_weights is not None:
        look_at(training.settings.pretrained_weights)
    check_names(board.host, training.settings, which=("train_dataset", "val_dataset"))
    return training


def imported_path(entry: DetectorEntry, seed: int | None) -> Path:
    """Returns the results that an entry names for a seed.

    Raises:
        UserError: If there are none.
    """
    assert entry.scores is not None, "only of entries with scores"
    path = Path(entry.scores.replace(SEED_MARK, str(seed)))
    if not path.exists():
        raise UserError(
            f"scores of {entry.name!r}", got=f"{path}, which does not exist", expected="a results.json"
        )
    return path


def gathered(board: Board, groups: Sequence[Group]) -> Iterator[tuple[Cell, Path | None]]:
    """Yields each cell with the folder or file of its results; ``None`` where they are not there yet."""
    training = {(cell.entry.name, cell.seed): group.training for group in groups for cell in group.cells}
    for cell in cells_of(board.asked):
        if cell.entry.scores is not None:
            yield cell, imported_path(cell.entry, cell.seed)
            continue
        own = training[cell.entry.name, cell.seed]
        if own is not None and not own.done():
            yield cell, None
            continue
        folder = folder_of_cell(board, cell, own)
        yield cell, folder if complete(folder) is not None else None
