"""Files are read in a process of its own, beside the model: a decoder that crashes costs one record."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from effort_finetune.core.errors import RunFailure
from effort_finetune.predict.cutting_worker import FILE, FRAME, PATIENCE, Shown
from effort_finetune.predict.file_crops import Cutter, FileCrops, hash_or_none

WORKER = "effort_finetune.predict.cutting_worker"
AHEAD = 2  # files that are asked for at once: the next one is read while the model looks at the last


class CuttingProcess:
    """Starts when it is first needed, starts again where it ended, and ends with its owner.

    Not `multiprocessing`: a fork of a process whose OpenCV has threads hangs, and a spawned one runs the
    caller's script again, where nothing keeps ``effort_finetune.predict(...)`` from standing at its top.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], Any] = lambda: None
        self._heard = 0.0

    def _start(self) -> None:
        home = str(Path(__file__).parents[2])
        places = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER],  # -P: a cv2.py in the working directory is not OpenCV
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            start_new_session=True,  # Ctrl-C and a scheduler's signals are for its owner
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._heard = 0.0

    def end(self) -> None:
        """Ends it at once; it starts again when it is needed."""
        self._end()
        self._process = None

    def cut(
        self,
        cutter: Cutter,
        files: Iterable[str],
        *,
        shown: Shown | None = None,
        watch: Callable[[str, Any], None] | None = None,
    ) -> Iterator[FileCrops]:
        """Yields what each file gave, in order; of one whose reader crashed or hangs, that it did.

        Args:
            cutter: How files are cut.
            files: Paths, asked for as they can be taken.
            shown: Made of each frame; a function of a module that imports no torch.
            watch: Called with the file and what ``shown`` made.

        Raises:
            RunFailure: If the process cannot even start.
        """
        remaining, waiting = iter(files), deque[str]()
        try:
            while True:
                while len(waiting) < AHEAD and (file := next(remaining, None)) is not None:
                    waiting.append(file)
                    self._ask(cutter, file, shown)
                if not waiting:
                    return
                try:
                    found = self._answer(waiting[0], watch)
                except (EOFError, OSError, pickle.UnpicklingError):
                    found = FileCrops(waiting[0], sha256=hash_or_none(waiting[0]), error=self._death())
                    for file in list(waiting)[1:]:
                        self._ask(cutter, file, shown)
                waiting.popleft()
                yield found
        finally:
            if waiting:  # nobody wants the answers that are still to come
                self.end()

    def _ask(self, cutter: Cutter, file: str, shown: Shown | None) -> None:
        if self._process is None:
            self._start()
        with suppress(OSError):  # it has ended, which is met where the answer is missing
            pipe = cast(IO[bytes], self._running.stdin)
            pickle.dump((cutter, file, shown), pipe, pickle.HIGHEST_PROTOCOL)
            pipe.flush()

    def _answer(self, file: str, watch: Callable[[str, Any], None] | None) -> FileCrops:
        while True:
            kind, value = pickle.load(cast(IO[bytes], self._running.stdout))
            self._heard = time.monotonic()
            if kind == FILE:
                return cast(FileCrops, value)
            if kind == FRAME and watch is not None:
                watch(file, value)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was started"
        return self._process

    def _death(self) -> str:
        """Says what ended it, and lets it start again."""
        code, heard = self._running.wait(), self._heard
        self.end()
        if not heard:
            raise RunFailure(
                f"the process that reads files ended before it began ({_words(code)}); next: "
                f"{Path(sys.executable).name} -m {WORKER} says why"
            )
        if code == 1 and time.monotonic() - heard >= PATIENCE:
            return f"its decoder gave no frame for {PATIENCE / 60:.0f} minutes"
        if code == -signal.SIGKILL:
            return "its reader was killed, perhaps for want of memory"
        return f"its decoder crashed ({_words(code)})" if code < 0 else f"its reader ended ({_words(code)})"


def _words(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was still to be written has no reader
            cast(IO[bytes], pipe).close()
