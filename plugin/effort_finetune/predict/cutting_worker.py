"""The process that reads files: decoders and face finders are native code; a crash of one ends it alone.

:mod:`effort_finetune.predict.cutting_process` starts it as ``python -m`` and speaks with it in pickles over
its standard input and output. It imports no torch.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, BinaryIO, TextIO

import numpy as np

from effort_finetune.predict.file_crops import Cutter, FileCrops

#: Makes of number and ``uint8[H, W, 3]`` (RGB) of a frame what is shown of it; a function of a module.
Shown = Callable[[int, np.ndarray], Any]
#: How a file is cut, the file, and what is shown of its frames.
Request = tuple[Cutter, str, Shown | None]
READY, FRAME, FILE = "ready", "frame", "file"  # kinds of an answer
#: Seconds without a frame after which a decoder counts as stuck; all frames of a film are counted first.
PATIENCE = 1800.0


def main() -> None:
    """Cuts what it is asked for until nobody asks any more."""
    requests, answers = _pipes()
    asked: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def answer(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()

    answer(READY, None)  # before a request may end it
    threading.Thread(target=_listen, args=(requests, asked), daemon=True).start()
    while True:
        cutter, file, shown = asked.get()
        _be_patient()
        answer(FILE, _cut(cutter, file, shown, answer))
        faulthandler.cancel_dump_traceback_later()


def _cut(cutter: Cutter, file: str, shown: Shown | None, answer: Callable[[str, Any], None]) -> FileCrops:
    def watch(_: str, number: int, image: np.ndarray) -> None:
        _be_patient()
        if shown is not None:
            with suppress(Exception):  # a picture that is too odd to be shown can still be judged
                made = shown(number, image)
                answer(FRAME, made)

    started = time.process_time()
    try:
        found = replace(cutter, watch=watch).cut(file)
    except Exception as error:  # whatever a reader raises is this file's alone
        words = " ".join(f"{type(error).__name__}: {error}".split())
        found = FileCrops(file, error=f"its reader failed: {words[:200]}")
    found.seconds = time.process_time() - started
    return found


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Takes standard input and output for the two ends; what a decoder prints goes to standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, answers


def _listen(requests: BinaryIO, asked: queue.SimpleQueue[Request]) -> None:
    """Hands requests on; ends the process with the one that asks, even in the middle of a file."""
    try:
        while True:
            asked.put(pickle.load(requests))
    except EOFError:
        os._exit(0)
    finally:  # a request that cannot be read: who asked must not wait for ever
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _be_patient() -> None:
    """Ends the process if it is not called again in time, even where native code never returns."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True, file=_nowhere())


@cache
def _nowhere() -> TextIO:
    """Where faulthandler's report goes: the record says what there is to say."""
    return open(os.devnull, "w")


if __name__ == "__main__":
    main()
