"""How long a leaderboard will take: by what its own runs took, else by one batch of each detector."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from effort_finetune.studies.board_cells import Board, Cell, complete, measuring, weights_of
from effort_finetune.studies.board_runs import Group, duration, folder_of_cell, missing_of

#: A step forwards and backwards takes about as long as three forwards (Kaplan et al. 2020, section 2.1).
STEP_OVER_FORWARD = 3


@dataclass(frozen=True)
class Pace:
    """What a detector takes.

    Attributes:
        loading: Seconds before its first frame.
        per_frame: Seconds a frame.
        source: Where the two are from.
    """

    loading: float
    per_frame: float
    source: str


def dry_run(board: Board, groups: Sequence[Group]) -> Iterator[str]:
    """Yields a line for each run with its state and estimated time, and one with the sum.

    Raises:
        UserError: If a dataset or weights cannot be used.
    """
    paces: dict[str, Pace] = {}
    frames: dict[str, int] = {}
    total, runs, there = 0.0, 0, 0
    for group in groups:
        train, cells = missing_of(board, group)
        there += len(group.cells) - len(cells) + (group.training is not None and not train)
        if not cells and not train:
            continue
        entry = group.cells[0].entry
        if entry.name not in paces:
            paces[entry.name] = _measured_pace(board, groups, entry.name) or _probed(board, group)
        pace = paces[entry.name]
        if train and group.training is not None:
            count = _training_frames(board, group)
            seconds = pace.loading + count * pace.per_frame * STEP_OVER_FORWARD
            total, runs = total + seconds, runs + 1
            yield f"{group.training}: to do, up to {duration(seconds)} ({count} frames over its epochs)"
        for cell in cells:
            if cell.dataset not in frames:
                frames[cell.dataset] = _frames(board, cell)
            seconds = pace.loading + frames[cell.dataset] * pace.per_frame
            total, runs = total + seconds, runs + 1
            yield f"{cell}: to do, about {duration(seconds)} ({frames[cell.dataset]} frames)"
    for name, pace in paces.items():
        yield f"{name}: {1 / pace.per_frame:.1f} frames a second, {pace.loading:.0f} s to load, {pace.source}"
    yield f"{there} of {there + runs} runs are there; {runs} to do, about {duration(total)} on this machine"


def _measured_pace(board: Board, groups: Sequence[Group], name: str) -> Pace | None:
    """By the cells of the detector that are there, whatever their seed."""
    loading, scoring, frames = [], 0.0, 0
    for group in groups:
        if group.cells[0].entry.name != name or (group.training is not None and not group.training.done()):
            continue
        for cell in group.cells:
            document = complete(folder_of_cell(board, cell, group.training))
            if document is None:
                continue
            loading.append(document["timings"]["loading_s"])
            for block in document["datasets"].values():
                scoring += block["timings"]["scoring_s"]
                frames += block["counts"]["frames_scored"]
    if not frames:
        return None
    return Pace(sum(loading) / len(loading), scoring / frames, "as its cells that are there took")


def _probed(board: Board, group: Group) -> Pace:
    """Builds the detector and scores one batch twice: the first one warms up."""
    from effort_finetune.core.device import choose_device
    from effort_finetune.core.precision import resolve_precision
    from effort_finetune.data.loader import make_loader
    from effort_finetune.evaluate import evaluation
    from effort_finetune.evaluate.predictions import score
    from effort_finetune.model.chosen_detector import build_host_detector, choose_detector
    from effort_finetune.model.detector import EffortFinetuneDetector

    start = time.perf_counter()
    cell = group.cells[0]
    weights = weights_of(cell.entry, cell.seed)
    settings = measuring(board, cell)
    device = choose_device(settings.device)
    chosen = choose_detector(settings, board.host, training=False)
    settings = settings.changed(model_name=chosen.name)
    if weights is not None:
        settings, datasets = evaluation.prepare(settings, board.host, weights)
    else:
        datasets = evaluation.open_datasets(board.host, settings, settings.test_dataset, "test")
    if not chosen.is_ours:
        model = build_host_detector(chosen, settings, board.host, weights, fresh=weights is None)
    else:
        model = EffortFinetuneDetector(settings)
    model = model.to(device)
    loading = time.perf_counter() - start
    (dataset,) = datasets.values()
    dataset.rows = dataset.rows[: settings.test_batchSize]
    loader = make_loader(dataset, batch_size=settings.test_batchSize, workers=0, seed=0, pin_memory=False)
    autocast = resolve_precision(settings.precision, device).dtype
    score(model, loader, device=device, autocast=autocast)
    start = time.perf_counter()
    score(model, loader, device=device, autocast=autocast)
    per_frame = (time.perf_counter() - start) / max(len(dataset.rows), 1)
    return Pace(loading, max(per_frame, 1e-6), f"by one batch of {len(dataset.rows)} frames")


def _frames(board: Board, cell: Cell) -> int:
    from effort_finetune.evaluate.evaluation import open_datasets

    settings = measuring(board, cell)
    (dataset,) = open_datasets(board.host, settings, settings.test_dataset, "test").values()
    return len(dataset.rows)


def _training_frames(board: Board, group: Group) -> int:
    """Frames of the whole training: an upper bound where it may stop early."""
    from effort_finetune.evaluate.evaluation import open_datasets

    assert group.training is not None, "asked of trainings only"
    settings = group.training.settings
    opened = open_datasets(board.host, settings, settings.train_dataset, "train")
    return sum(len(dataset.rows) for dataset in opened.values()) * settings.nEpochs
