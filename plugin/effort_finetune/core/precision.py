"""The arithmetic a run trains in: chosen from the hardware, stated in the results.

Parameters stay in float32; only the forward pass runs in the low precision, under
``torch.autocast``. The rank-k residual is kept factored there, so that no rounding step of a
merged weight can swallow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from effort_finetune.core.device import has_native_bf16
from effort_finetune.core.errors import UserError

_DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Precision:
    """A resolved precision.

    Attributes:
        name: ``float32``, ``bf16`` or ``fp16``.
        device_type: ``cpu``, ``cuda`` or ``mps``.
        reason: Why this one, in words for the results.
    """

    name: str
    device_type: str
    reason: str

    @property
    def dtype(self) -> torch.dtype | None:
        """What autocast computes in; ``None`` for float32."""
        return _DTYPES[self.name]

    def autocast(self) -> AbstractContextManager[object]:
        """Returns a fresh context for one forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device_type, dtype=self.dtype)

    def make_scaler(self) -> torch.amp.GradScaler:
        """Returns the gradient scaler; it does nothing except for fp16, whose range is too small."""
        return torch.amp.GradScaler("cuda", enabled=self.name == "fp16")

    def to_dict(self) -> dict[str, object]:
        """Returns what the results say about it."""
        return {"name": self.name, "autocast": self.dtype is not None, "reason": self.reason}


def resolve_precision(asked: str, device: torch.device) -> Precision:
    """Chooses the precision of a run.

    ``auto`` takes bf16 where the hardware multiplies it natively (CUDA from Ampere on, CPUs with
    avx512_bf16 or AMX), fp16 with loss scaling on older CUDA devices with tensor cores, and
    float32 everywhere else; so also on MPS, which has no gradient scaler to rely on.

    Args:
        asked: ``auto``, ``float32``, ``bf16`` or ``fp16``.
        device: The device of the run.

    Raises:
        UserError: If the device cannot train in the precision asked for.
    """
    if asked == "auto":
        name, reason = _automatic(device)
        return Precision(name, device.type, f"auto: {reason}")
    if asked not in _DTYPES:
        raise UserError("precision", got=repr(asked), expected=f"auto, {', '.join(_DTYPES)}")
    if asked == "fp16" and device.type != "cuda":
        raise UserError(
            "precision",
            got=f"'fp16' on {device.type}",
            expected="fp16 on CUDA only, where gradients are scaled",
            next_step="--precision auto",
        )
    if asked == "bf16" and device.type == "mps":
        _probe_mps_bf16(device)
    emulated = asked == "bf16" and device.type == "cpu" and not has_native_bf16(device)
    note = "; this CPU shows no bf16 instructions, float32 may be faster" if emulated else ""
    return Precision(asked, device.type, f"asked for{note}")


def _automatic(device: torch.device) -> tuple[str, str]:
    if has_native_bf16(device):
        return "bf16", f"the {device.type} device multiplies bf16 natively"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return "fp16", "the GPU has fp16 tensor cores and no bf16; gradients are scaled"
    return "float32", f"no fast 16-bit training on this {device.type} device"


def _probe_mps_bf16(device: torch.device) -> None:
    try:
        with torch.autocast("mps", dtype=torch.bfloat16):
            _ = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            "precision",
            got=f"'bf16' on an MPS that cannot compute it ({str(error).partition('. ')[0]})",
            expected="float32 there",
            next_step="--precision float32",
        ) from error


def widened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a model's answers with those in half precision as float32."""
    half = (torch.bfloat16, torch.float16)
    return {k: v.float() if isinstance(v, torch.Tensor) and v.dtype in half else v for k, v in values.items()}
