"""Which device and which precision a run uses when the settings leave it open."""

from __future__ import annotations

from pathlib import Path

import torch

from effort_finetune.errors import UserError

_DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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


def choose_autocast(precision: str, device: torch.device) -> torch.dtype | None:
    """Returns the autocast dtype of a ``precision`` setting, ``None`` for plain float32.

    ``auto`` is bfloat16 where the hardware multiplies it natively and float32 elsewhere; float16
    is never chosen alone, since it needs loss scaling and can overflow.

    Raises:
        UserError: If the device cannot run the precision that was asked for.
    """
    if precision == "auto":
        return torch.bfloat16 if has_native_bf16(device) else None
    if precision not in _DTYPES:
        raise UserError("precision", got=repr(precision), expected="auto, float32, bf16 or fp16")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision", got="'fp16' on a CPU", expected="auto, float32 or bf16 there")
    return _DTYPES[precision]


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
