"""The Effort fork's extra tensors: the frozen part once more, as its singular triplets.

``S_r [n-k]``, ``U_r [n, n-k]``, ``V_r [n-k, m]`` with ``weight_main = U_r diag(S_r) V_r``. They triple the
file and add nothing to the forward path, so they are not loaded; but a file in which they contradict
``weight_main`` has been tampered with or mixed up, and is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effort_finetune.core.errors import UserError
from effort_finetune.weights.checkpoint import abbreviate

# Upstream rebuilds main in float32 (relative error some 1e-6); half-precision storage rounds at 1e-2 to 1e-3.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def verify(tensors: dict[str, Tensor], what: str) -> None:
    """Checks ``weight_main = U_r diag(S_r) V_r`` in every module, by one product with a fixed vector each.

    Args:
        tensors: The file's keys, wrappers removed.
        what: How to name the file in an error.

    Raises:
        UserError: If a module lacks one of the three, their shapes do not fit or the identity does not hold.
    """
    modules = sorted({key[:-4] for key in tensors if key.endswith((".S_r", ".U_r", ".V_r"))})
    wrong = [module for module in modules if not _agrees(tensors, module)]
    if wrong:
        raise UserError(
            f"{what} (effort-fork)",
            got=f"{len(wrong)} of {len(modules)} modules that do not: {abbreviate(wrong)}",
            expected="U_r diag(S_r) V_r to equal weight_main",
        )


def _agrees(tensors: dict[str, Tensor], module: str) -> bool:
    parts = [tensors.get(f"{module}.{leaf}") for leaf in ("weight_main", "U_r", "S_r", "V_r")]
    if any(part is None for part in parts):
        return False
    main, u, s, v = (part for part in parts if part is not None)
    if (
        main.ndim != 2
        or s.ndim != 1
        or u.shape != (main.shape[0], len(s))
        or v.shape != (len(s), main.shape[1])
    ):
        return False
    probe = torch.cos(torch.arange(main.shape[1], dtype=torch.float32))
    direct = main.float() @ probe
    rebuilt = u.float() @ (s.float() * (v.float() @ probe))
    scale = direct.norm().clamp_min(torch.finfo(torch.float32).tiny)
    return bool((direct - rebuilt).norm() / scale <= _TOLERANCE.get(main.dtype, 5e-2))
