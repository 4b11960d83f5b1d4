"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412, algorithm 1) over SGD with momentum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class SAM(torch.optim.SGD):
    """SGD whose gradient is taken ``rho`` further up the slope than the weights are.

    Args:
        groups: Parameters or groups.
        rho: Length of the ascent, over all parameters together.
        sgd: What SGD takes.
    """

    def __init__(self, groups: Any, *, rho: float, **sgd: Any) -> None:
        super().__init__(groups, **sgd)
        self.rho = rho

    @contextmanager
    def ascended(self) -> Iterator[None]:
        """Within the context the weights are ``rho`` up the present gradient; after it back, to the bit.

        The gradients are taken away on entering: those made inside are of the ascended weights. Where they
        are not finite there is no way up: the weights stay, and the same gradients are made again.
        """
        learning: list[Tensor] = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        before = [parameter.detach().clone() for parameter in learning]
        try:
            with torch.no_grad():
                # Each on the device of the first: a model may be spread over several.
                norms = [p.grad.norm().to(learning[0].device) for p in learning if p.grad is not None]
                norm = torch.stack(norms).norm() if norms else torch.zeros(())
                scale = self.rho / (norm + 1e-12)
                for parameter in learning if bool(torch.isfinite(norm)) else ():
                    assert parameter.grad is not None
                    parameter.add_(parameter.grad * scale.to(parameter.device))
            self.zero_grad(set_to_none=True)
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(learning, before, strict=True):
                    parameter.copy_(value)
