"""Which device a run uses."""

from __future__ import annotations

from typing import Any

import torch
from config.errors import SettingError


def choose_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """Return the device for ``device``: ``auto`` prefers CUDA, then MPS, then the CPU.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        local_rank: In a distributed run the number of this process's GPU.

    Raises:
        SettingError: Not a device, or not one of this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda" if local_rank is None else f"cuda:{local_rank}"
        else:
            name = "mps" if torch.backends.mps.is_available() and local_rank is None else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingError(f"device is '{name}', expected auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingError(
            f"device is '{name}', but this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError("device is 'mps', but this machine has none")
    return device


def to_device(data_dict: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move a batch to a device; labels above 0 become 1, as detectors tell real from fake."""
    moved = {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in data_dict.items()
    }
    moved["label"] = (moved["label"] > 0).long()
    return moved
