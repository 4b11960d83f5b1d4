"""From a folder of videos and pictures to crops in DeepfakeBench's layout; a second run does what is left."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2

from effort_finetune.core import temporaries
from effort_finetune.core.counted import counted, worded
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.files import ensure_writable_dir
from effort_finetune.core.locks import hold, holder
from effort_finetune.core.processes import end_with_parent
from effort_finetune.core.progress import track
from effort_finetune.data.crop_options import CropOptions
from effort_finetune.data.crop_record import (
    JOURNALS,
    CropRecord,
    Journal,
    SourceReport,
    read_record,
    write_record,
)
from effort_finetune.data.crop_source import crop_source
from effort_finetune.data.crop_sources import CropSource, FoundSources

Shard = tuple[int, int]  # number from 1, and of how many


@dataclass(frozen=True)
class CropRun:
    """What a run did.

    Attributes:
        reports: Of this run's sources, in their order.
        done_before: Titles whose crops were there and are as they should be.
        removed: Titles whose crops were taken away: their source is gone, or has another class now.
        kept: Titles of other folders, whose crops stay.
        skipped: Files that were not taken, by reason.
    """

    reports: tuple[SourceReport, ...]
    done_before: frozenset[str]
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    skipped: Mapping[str, int]


@dataclass(frozen=True)
class _Plan:
    todo: tuple[CropSource, ...]
    done: Mapping[str, SourceReport]
    removed: tuple[SourceReport, ...]
    kept: tuple[SourceReport, ...]


def crop_dataset(
    found: FoundSources, target: Path, options: CropOptions, *, workers: int = 1, shard: Shard = (1, 1)
) -> CropRun:
    """Crops what is new or changed, and takes away the crops of what is gone.

    Writes ``<target>/<real|fake>/frames/<name>/<number>.png``, with the 81-point model also
    ``landmarks/<name>/<number>.npy``, and ``crops.json`` (:mod:`crop_record`). A source is done again
    when its content or the options changed. One share of several leaves ``crops.json`` to a later run.

    Args:
        found: The sources.
        target: The dataset's folder, ``<rgb_dir>/<dataset>``.
        options: How crops are made.
        workers: Processes.
        shard: Which share of the sources this run takes.

    Raises:
        UserError: The target cannot be written, is being written, or holds crops that are not of prepare.
        RunFailure: A process was killed; what it had finished is kept.
    """
    options.make_finder()  # its errors belong here, not into the reports of all sources
    ensure_writable_dir(target, what="folder of the crops", flag="--rgb_dir")
    alone = shard == (1, 1)
    part = "all" if alone else f"{shard[0]}-of-{shard[1]}"
    _refuse_while_shares_run(target, alone)
    with hold(target if alone else target / JOURNALS / part, what="folder of the crops"):
        temporaries.remove_dead(target)
        shaping = options.shaping()
        shape = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()
        record = read_record(target)
        plan = _plan(_share(found.sources, shard), target, shape, record, remove=alone)
        reports = dict(plan.done)
        licence = finder.licence if (finder := options.make_finder()) is not None else None
        with Journal(target, part, shaping, licence, found.skipped) as journal:
            for gone in plan.removed:
                journal.removed(gone.title)
                _take_away(gone.places(target), target)
            work = partial(crop_source, target=target, options=options)
            for report, made in track(
                _run(plan.todo, shape, work, workers), desc="cropping", total=len(plan.todo), unit="source"
            ):
                _put_in_place(report, made, target, journal)
                reports[report.title] = report
        ordered = [reports[source.title] for source in _share(found.sources, shard)]
        if alone:
            write_record(target, shaping, licence, [*ordered, *plan.kept], found.skipped)
    return CropRun(
        tuple(ordered),
        frozenset(plan.done),
        tuple(report.title for report in plan.removed),
        tuple(report.title for report in plan.kept),
        found.skipped,
    )


def _refuse_while_shares_run(target: Path, alone: bool) -> None:
    """A run over all sources ends with the shares' journals in one file, so no share may be writing."""
    folders = [place for place in (target / JOURNALS).glob("*") if place.is_dir()] if alone else [target]
    for folder in folders:
        if (who := holder(folder)) is not None:
            raise UserError(f"{visible(target)} is being written", got=str(who), next_step="wait for it")


def gather_shares(target: Path) -> CropRecord | None:
    """Reads the record of a dataset; shares that are done become one ``crops.json``.

    Raises:
        UserError: A share is still being written.
    """
    record = read_record(target)
    if record is not None and (target / JOURNALS).is_dir():
        _refuse_while_shares_run(target, alone=True)
        with hold(target, what="folder of the crops"):
            write_record(target, record.shaping, record.licence, record.reports.values(), record.skipped)
    return record


def _share(sources: Sequence[CropSource], shard: Shard) -> Sequence[CropSource]:
    number, count = shard
    return sources[number - 1 :: count]


def _plan(
    sources: Sequence[CropSource], target: Path, shape: str, record: CropRecord | None, *, remove: bool
) -> _Plan:
    """Sorts sources and earlier reports into what is to do, done, to remove and not of this folder."""
    earlier = dict(record.reports) if record is not None else {}
    todo, done = [], {}
    for source in track(sources, desc="looking", unit="source"):
        report = earlier.get(source.title)
        current = None if report is None else _still_true(report, source, target, shape)
        if current is not None:
            done[source.title] = current
            continue
        if report is None and source_folder_is_foreign(source, target):
            raise UserError(
                f"{visible(target)} holds crops that prepare did not make",
                got=f"{visible(source.title)} is there and not in crops.json",
                expected="a folder of its own", next_step="choose another NAME, or move the folder away",
            )  # fmt: skip
        todo.append(source)
    titles = {source.title for source in sources}
    left = [report for title, report in earlier.items() if title not in titles] if remove else []
    roots = {str(source.root) for source in sources}
    # A folder that moved has its sources under the same names; what it lacks now is gone.
    moved = {earlier[title].root for title in titles if title in earlier}
    removed = [r for r in left if r.root in roots or (r.root in moved and not Path(r.root).exists())]
    return _Plan(tuple(todo), done, tuple(removed), tuple(r for r in left if r not in removed))


def source_folder_is_foreign(source: CropSource, target: Path) -> bool:
    """Tells whether pictures lie where a source's crops would."""
    place = target / source.label / "frames" / source.name
    return place.is_dir() and any(place.iterdir())


def _still_true(report: SourceReport, source: CropSource, target: Path, shape: str) -> SourceReport | None:
    """The report as it holds now; None where the source is to be cropped again."""
    if report.error is not None or (report.shape, report.kind) != (shape, source.kind):
        return None
    if not report.is_there(target):
        return None
    look = source.look()
    if report.look != look and report.sha256 != source.sha256():
        return None
    container = report.container or source.container()  # of which earlier records know nothing
    return replace(report, look=look, root=str(source.root), split=source.split, container=container)


def _run(
    sources: Sequence[CropSource], shape: str, work: partial[tuple[SourceReport, Path | None]], workers: int
) -> Iterator[tuple[SourceReport, Path | None]]:
    """Results as they come; few are under way at once, so memory does not grow with the dataset."""
    if workers <= 1 or len(sources) <= 1:
        yield from (work(source, shape) for source in sources)
        return
    waiting = iter(sources)
    pool = ProcessPoolExecutor(
        min(workers, len(sources)),
        mp_context=multiprocessing.get_context("spawn"),  # a fork of a process whose OpenCV has threads hangs
        initializer=_begin_worker,
    )
    under_way: set[Future[tuple[SourceReport, Path | None]]] = set()
    try:
        for source in waiting:
            under_way.add(pool.submit(work, source, shape))
            if len(under_way) >= 2 * workers:
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        while under_way:
            finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    except BrokenProcessPool as error:
        raise RunFailure(
            "a process that cuts faces was killed, by want of memory or by a video that crashes the "
            "decoder; what was finished is kept; next: run it again, with fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    end_with_parent()
    cv2.setNumThreads(1)


def _put_in_place(report: SourceReport, made: Path | None, target: Path, journal: Journal) -> None:
    """Old crops go, the journal is told, new crops come: a run that is killed in between does it again."""
    crops, landmarks = report.places(target)
    _take_away((crops, landmarks), target)
    journal.finished(report)
    if made is not None:
        for new, place in ((made / "landmarks", landmarks), (made / "frames", crops)):
            if new.is_dir():
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(new, place)
        shutil.rmtree(made, ignore_errors=True)


def _take_away(places: Sequence[Path], target: Path) -> None:
    for place in places:
        if place.is_dir() and not place.is_symlink():
            with temporaries.folder(target, "old") as aside:
                os.replace(place, aside / "crops")


def summary(run: CropRun) -> list[str]:
    """The table at the end of a run: taken, and dropped by reason."""
    done = [report for report in run.reports if report.error is None]
    failed = len(run.reports) - len(done)
    labels = Counter(report.title.partition("/")[0] for report in done if report.crops)
    per_class = ", ".join(f"{labels[label]} {label}" for label in ("real", "fake"))
    same = counted(len(run.done_before), "source is as it was", "sources are as they were")
    again = f"; {same}" if run.done_before else ""
    unreadable: Counter[str] = sum((Counter(report.reasons) for report in done), Counter())
    crops = sum(report.crops for report in done)
    rows = [
        (crops, "crop", "crops", f" of {counted(sum(labels.values()), 'source')} ({per_class}{again})"),
        (sum(report.no_face for report in done), "frame", "frames", " without a face"),
        (sum(report.lost for report in done), "crop", "crops", " in which no face was found again"),
        *(
            (count, "frame that", "frames that", f" cannot be decoded: {visible(why)}")
            for why, count in unreadable.items()
        ),
        (sum(report.several for report in done), "frame", "frames", " with several faces"),
        (sum(not report.crops for report in done), "source", "sources", " without any crop"),
        (failed, "source", "sources", " that cannot be read"),
        (len(run.removed), "source that is", "sources that are", " gone: the crops were taken away"),
        (len(run.kept), "source of another folder: its", "sources of other folders: their", " crops stay"),
        *((count, "file", "files", f" not taken: {visible(why)}") for why, count in run.skipped.items()),
    ]
    return [
        f"{count:>8}  {worded(count, one, several)}{more}"
        for place, (count, one, several, more) in enumerate(rows)
        if count or not place
    ]
