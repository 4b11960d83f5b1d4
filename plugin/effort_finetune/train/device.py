"""What the training device is called and what its memory says."""

from __future__ import annotations

import math
import os
import sys

import torch

GIB = 2**30


def device_name(device: torch.device) -> str:
    """Returns the name a person knows the device by."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return "Apple GPU (mps)" if device.type == "mps" else f"CPU, {torch.get_num_threads()} threads"


def memory_report(device: torch.device) -> dict[str, float | None]:
    """Returns the memory of the process in GiB, for logs and results.

    Keys: ``allocated_gib`` on the device now, ``peak_gib`` on the device since the start,
    ``total_gib`` of the device, ``host_peak_gib`` resident in main memory at most. ``None`` where
    the system does not tell: a CPU's first and third, MPS's peak, Windows' last.
    """
    allocated = peak = total = None
    if device.type == "cuda":
        allocated = torch.cuda.memory_allocated(device) / GIB
        peak = torch.cuda.max_memory_allocated(device) / GIB
        total = torch.cuda.get_device_properties(device).total_memory / GIB
    elif device.type == "mps":
        allocated = torch.mps.driver_allocated_memory() / GIB
        total = torch.mps.recommended_max_memory() / GIB
    host = _resident_peak_gib()
    if device.type == "cpu":
        peak = host
    return {"allocated_gib": allocated, "peak_gib": peak, "total_gib": total, "host_peak_gib": host}


def describe_memory(device: torch.device) -> str:
    """Returns :func:`memory_report` in words for the log."""
    report = memory_report(device)
    words = {"allocated_gib": "allocated", "peak_gib": "peak", "total_gib": "of the device's"}
    parts = [f"{word} {report[key]:.2f} GiB" for key, word in words.items() if report[key] is not None]
    return ", ".join(parts) or "not known on this system"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tells whether a backend's error means that memory ran out; only CUDA has a class for it."""
    text = str(error).lower()
    words = "out of memory" in text or "can't allocate memory" in text
    return words or isinstance(error, torch.cuda.OutOfMemoryError)


def host_memory() -> float:
    """Returns the bytes of main memory, infinity where the system does not tell (Windows)."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _resident_peak_gib() -> float | None:
    try:
        import resource
    except ImportError:  # Windows has no resource module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / GIB if sys.platform == "darwin" else peak * 1024 / GIB
