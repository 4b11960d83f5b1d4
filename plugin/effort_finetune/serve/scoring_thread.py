"""The one thread that judges: files one after the other, in small groups, for as long as the server runs."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from effort_finetune.predict.file_crops import FileCrops
from effort_finetune.predict.file_records import FileRecord
from effort_finetune.predict.heat_files import HeatMapper
from effort_finetune.predict.prediction import Predictor
from effort_finetune.serve.file_pictures import write_pictures
from effort_finetune.serve.kept_files import KeptFiles
from effort_finetune.serve.page_row import Row, RowPictures
from effort_finetune.serve.row_store import RowStore
from effort_finetune.serve.small_frames import SmallFrame, small_frame

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
PAUSE = 2.0  # seconds before another try


class ScoringThread:
    """Takes waiting rows and finishes them.

    Args:
        predictor: What judges; used by this thread alone.
        store: The rows.
        files: Their bytes.
        heat: Makes maps of where the model looked; None leaves them out.

    Attributes:
        trouble: Why nothing is judged now; None where all is well.
    """

    def __init__(
        self, predictor: Predictor, store: RowStore, files: KeptFiles, heat: HeatMapper | None = None
    ) -> None:
        self._predictor, self._store, self._files, self._heat = predictor, store, files, heat
        self.trouble: str | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self._taken: dict[str, tuple[Row, float, list[SmallFrame]]] = {}
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def wake(self) -> None:
        """Says that a file is waiting."""
        self._wake.set()

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Has something done by this thread, before the next group: the model serves one at a time."""
        answer: Future[T] = Future()
        self._asked.put((work, answer))
        self.wake()
        return answer

    def stop(self, timeout: float = 30.0) -> bool:
        """Ends after the group that is being judged.

        Args:
            timeout: Seconds that are waited for it.

        Returns:
            Whether it has ended.
        """
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def frames_read(self) -> dict[int, int]:
        """Returns how many frames of each file that is being judged have been read."""
        return {row.id: len(frames) for row, _, frames in list(self._taken.values())}

    def _run(self) -> None:
        # Entered once: to merge and unmerge the layers for every group would cost as much as some pictures.
        with self._predictor.model.merged():
            while not self._stop.is_set():
                self._wake.wait()
                self._wake.clear()
                try:
                    self._work()
                except Exception as error:  # no row's fault: the rows cannot be written, the disk is full
                    self.trouble = f"nothing can be judged now, tried again soon: {_reason(error)}"
                    _LOG.error(self.trouble)
                    self._stop.wait(PAUSE)
                    self._wake.set()

    def _work(self) -> None:
        """Judges all that waits; first what an earlier try left half done."""
        self._taken.clear()
        self._store.give_back()
        self._answer()
        while not self._stop.is_set() and (row := self._store.take()) is not None:
            self._group(row)
            self._answer()

    def _answer(self) -> None:
        while not self._asked.empty():
            work, answer = self._asked.get()
            if not answer.set_running_or_notify_cancel():  # who asked has left
                continue
            try:
                answer.set_result(work())
            except Exception as error:
                answer.set_exception(error)

    def _group(self, first: Row) -> None:
        """Judges a row and those behind it that are asked about in the same way."""
        batch = self._store.batch(first.batch)
        if batch is None:  # removed since
            return
        try:
            self._judge(self._names(first, batch.stability), stability=batch.stability)
        except sqlite3.Error:  # no file's fault
            raise
        except Exception:  # one file of the group is to blame: each for itself
            blamed = [row for row, _, _ in self._taken.values()]
            self._taken.clear()
            for row in blamed:
                self._alone(row, stability=batch.stability)

    def _alone(self, row: Row, *, stability: bool) -> None:
        try:
            self._judge(iter([self._take(row)]), stability=stability)
        except sqlite3.Error:
            raise
        except Exception as error:  # whatever a decoder or the model raises is this row's alone
            self._taken.clear()
            self._store.change(row.id, state="refused", note=f"it cannot be judged: {_reason(error)}")

    def _judge(self, names: Iterator[str], *, stability: bool) -> None:
        judged = self._predictor.judged(names, stability=stability, shown=small_frame, watch=self._watch)
        for crops, record in judged:
            row, started, frames = self._taken[crops.file]
            pictures = self._pictures(row, crops, record, frames)
            self._store.finish(row.id, replace(record, file=row.name), pictures, time.monotonic() - started)
            del self._taken[crops.file]
            self.trouble = None
            if self._store.row(row.id) is None:  # removed while it was judged
                self._files.forget(row.id, row.name)

    def _pictures(
        self, row: Row, crops: FileCrops, record: FileRecord, frames: list[SmallFrame]
    ) -> RowPictures:
        try:
            return write_pictures(self._files.pictures(row.id), crops, record, frames, self._heat)
        except Exception as error:  # the verdict is worth more than its pictures
            _LOG.warning("no pictures of %s: %s", row.name, error)
            return RowPictures()

    def _names(self, first: Row, stability: bool) -> Iterator[str]:
        row: Row | None = first
        while row is not None:
            yield self._take(row)
            ends = self._stop.is_set() or not self._asked.empty()
            row = None if ends else self._store.take(stability=stability)

    def _take(self, row: Row) -> str:
        name = str(self._files.path(row.id, row.name))
        self._taken[name] = (row, time.monotonic(), [])
        return name

    def _watch(self, file: str, frame: SmallFrame) -> None:
        self._taken[file][2].append(frame)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
