"""What the installed torch cannot do here, known from its build without the seconds that its import takes."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

from effort_finetune.core.errors import UserError


def refuse_absent_device(device: str, precision: str) -> None:
    """Refuses a device that this build of torch has on no machine, and fp16 beside it.

    What only torch can tell, such as the number of GPUs, is left to ``core.device.choose_device``.

    Args:
        device: The setting ``device``.
        precision: The setting ``precision``.

    Raises:
        UserError: If the device cannot be had.
    """
    no_cuda = not builds_for_gpu()
    if (device.startswith("cuda") and no_cuda) or (device == "mps" and sys.platform != "darwin"):
        raise UserError(
            "device",
            got=f"{device!r}, which this machine does not have",
            expected="auto or cpu" if no_cuda else "auto, cpu or cuda",
            next_step="use --device auto",
        )
    if precision == "fp16" and (no_cuda or device in ("cpu", "mps")):
        raise UserError(
            "precision",
            got=f"'fp16' on {device if device != 'auto' else 'a torch without CUDA'}",
            expected="fp16 on CUDA only, where gradients are scaled",
            next_step="--precision auto",
        )


def builds_for_gpu() -> bool:
    """Tells whether torch was built for CUDA or ROCm; True where that cannot be read."""
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return True
    version = Path(next(iter(spec.submodule_search_locations))) / "version.py"
    try:
        text = version.read_text(encoding="utf-8")
    except OSError:
        return True
    stated = re.findall(r"^(?:cuda|hip)\b[^=\n]*=\s*(.+)$", text, re.M)
    return not stated or any(value.strip() != "None" for value in stated)
