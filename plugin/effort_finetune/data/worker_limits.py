"""How many loader processes a machine can bear: cores, shared memory, open files, looked at beforehand.

A container has 64 MB of shared memory unless it is given more. A worker that finds it full is ended by the
system or waits for ever, so what is needed is counted first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys

from effort_finetune.core.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

SHARED_MEMORY = "/dev/shm"
#: Batches each worker holds ready.
PREFETCH = 2
#: Open files of a batch on its way (a handle for each of its four tensors) and of a worker (its pipes and
#: locks, in the parent and in itself).
_FILES_PER_BATCH, _FILES_PER_WORKER = 4, 12
_FILES_SPARE = 24


def most_workers() -> int:
    """The most loader processes that can be asked for: four a core, at least eight."""
    return max(8, 4 * (os.cpu_count() or 1))


def affordable_workers(asked: int, bytes_per_batch: int) -> int:
    """Returns how many of the workers asked for can run without filling the machine.

    Args:
        asked: Loader processes.
        bytes_per_batch: Of a batch in shared memory.

    Returns:
        ``asked``, or fewer, down to 0, after a warning that says why and what to do.

    Raises:
        UserError: If ``asked`` is above :func:`most_workers`.
    """
    if asked > most_workers():
        raise UserError(
            "workers",
            got=asked,
            expected=f"at most {most_workers()} on this machine's {os.cpu_count()} cores",
            next_step="set workers to the number of cores, or 0",
        )
    if not asked:
        return 0
    free = _free_shared_memory()
    fit, reason = asked, ""
    # Half of it: other loaders of the run, and other programs, share it.
    if free is not None and _shared(asked, bytes_per_batch) > free // 2:
        fit = max(0, (free // 2 // max(1, bytes_per_batch) - 1) // PREFETCH)
        reason = (
            f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free and {asked} would need "
            f"{2 * _shared(asked, bytes_per_batch) / 1e6:.0f} MB (docker run --shm-size=2g)"
        )
    files = _free_files(_files(asked))
    if files is not None and _files(fit) > files:
        while fit and _files(fit) > files:
            fit -= 1
        reason = f"the process may open {files} more files (raise it with ulimit -n)"
    if fit < asked:
        logger.warning("%d of %d loader processes are started: %s", fit, asked, reason)
    return fit


def _shared(workers: int, bytes_per_batch: int) -> int:
    return (workers * PREFETCH + 1) * bytes_per_batch


def _files(workers: int) -> int:
    in_flight = (workers * PREFETCH + 1) * _FILES_PER_BATCH
    return workers * _FILES_PER_WORKER + in_flight + _FILES_SPARE if workers else 0


def _free_shared_memory() -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError):
        return shutil.disk_usage(SHARED_MEMORY).free
    return 0  # there is none: a batch could not be handed over


def _free_files(needed: int) -> int | None:
    """Files the process may still open, after raising its own bound as far as it may where that helps."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = 32
    wanted = used + needed
    if soft < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
        raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return max(0, soft - used)
