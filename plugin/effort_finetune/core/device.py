"""Which device a run uses when the settings leave it open, what it is called and what its memory says."""

from __future__ import annotations

import gc
import math
import os
import sys
from pathlib import Path

import torch

from effort_finetune.core.errors import UserError

GIB = 2**30


def choose_device(name: str) -> torch.device:
    """Returns the device of a ``device`` setting: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: If the named device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError("device", got=repr(name), expected="auto, cpu, cuda, cuda:N or mps") from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise UserError(
            "device",
            got=f"{name!r}, which this machine does not have",
            expected="auto, cpu" + (f" or cuda:0..{torch.cuda.device_count() - 1}" if there["cuda"] else ""),
            next_step="use --device auto",
        )
    return device


def has_native_bf16(device: torch.device) -> bool:
    """Returns whether bfloat16 products run in hardware on a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool({"avx512_bf16", "amx_bf16", "bf16"} & _cpu_flags())
    return False


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")  # Linux only; torch has no public question for it
    if not cpuinfo.exists():
        return set()
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def device_name(device: torch.device) -> str:
    """Returns the name a person knows the device by."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return "Apple GPU (mps)" if device.type == "mps" else f"CPU, {torch.get_num_threads()} threads"


def memory_report(device: torch.device) -> dict[str, float | None]:
    """Returns the memory of the process in GiB, for logs and results.

    Keys: ``allocated_gib`` on the device now, ``peak_gib`` on the device since the start,
    ``total_gib`` of the device, ``resident_gib`` in main memory now and ``host_peak_gib`` at most. ``None``
    where the system does not tell: a CPU's first and third, MPS's peak, resident where there is no /proc.
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
    return {
        "allocated_gib": allocated,
        "peak_gib": peak,
        "total_gib": total,
        "resident_gib": _resident_gib(),
        "host_peak_gib": host,
    }


def describe_memory(device: torch.device) -> str:
    """Returns :func:`memory_report` in words for the log."""
    report = memory_report(device)
    words = {"allocated_gib": "allocated", "peak_gib": "peak", "total_gib": "of the device's"}
    if device.type == "cpu":
        words = {"resident_gib": "resident", "peak_gib": "peak"}
    parts = [f"{word} {report[key]:.2f} GiB" for key, word in words.items() if report[key] is not None]
    return ", ".join(parts) or "not known on this system"


def used_memory(device: torch.device) -> float | None:
    """Returns the GiB that the process has on its device now; on a CPU what is resident."""
    report = memory_report(device)
    return report["resident_gib"] if device.type == "cpu" else report["allocated_gib"]


_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)


def is_out_of_memory(error: Exception) -> bool:
    """Tells whether an error means that memory ran out; of the backends only CUDA has a class for it.

    oneDNN (convolutions and linear layers on a CPU) has no words for it: where the memory for its
    generated code, scratch space or a tensor is refused, it "could not create" the thing.
    """
    text = str(error).lower()
    words = any(part in text for part in _OUT_OF_MEMORY)
    return words or isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))


def release_memory(device: torch.device) -> None:
    """Gives back what a step that did not fit has left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def host_memory() -> float:
    """Returns the bytes of main memory, infinity where the system does not tell (Windows)."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _resident_gib() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / GIB


def _resident_peak_gib() -> float | None:
    try:
        import resource
    except ImportError:  # Windows has no resource module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / GIB if sys.platform == "darwin" else peak * 1024 / GIB
