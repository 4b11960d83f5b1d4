"""How much memory a process may still take: of its device, or on a CPU under every limit that is set."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_GROUP = Path("/sys/fs/cgroup")
#: Files of a limit and of what is used of it, of control groups version 2 and 1.
_GROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def free_memory(device: torch.device) -> float:
    """Returns the bytes that this process can still get; infinity where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + unused)
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(_available(), _of_group(), _of_address_space())


def _available() -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return math.inf


def _of_group() -> float:
    for limit, used in _GROUP_FILES:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            return float((_GROUP / limit).read_text()) - float((_GROUP / used).read_text())
    return math.inf


def _of_address_space() -> float:
    if resource is None:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return math.inf
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return float(soft - pages * os.sysconf("SC_PAGE_SIZE"))
    return float(soft)
