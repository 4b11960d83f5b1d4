"""Progress bars with rate and time left on a terminal, silence everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from effort_finetune.core import launch

T = TypeVar("T")


def track(iterable: Iterable[T], *, desc: str, total: int | None = None, unit: str = "it") -> Iterable[T]:
    """Wraps an iterable in a progress bar when stderr is a terminal.

    Args:
        iterable: What is iterated.
        desc: The words before the bar.
        total: Number of items; ``len(iterable)`` when it has one.
        unit: The word behind the rate.
    """
    return bar(iterable, desc=desc, total=total, unit=unit)


def bar(iterable: Iterable[T] | None = None, **options: Any) -> tqdm:
    """Returns a :class:`tqdm.tqdm` that draws only on a terminal, and of several processes one alone.

    It takes tqdm's own options.
    """
    options.setdefault("leave", False)
    options.setdefault("dynamic_ncols", True)
    quiet = not (sys.stderr.isatty() and launch.is_first())
    shown = tqdm(iterable, disable=quiet, file=sys.stderr, **options)
    if not quiet:
        # tqdm asks the time of day: a clock that is set back would stop the bar until it is that time again.
        shown._time = time.monotonic
        shown.start_t = shown.last_print_t = time.monotonic()
    return shown
