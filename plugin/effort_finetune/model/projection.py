"""Gradient projection: what trains a residual may not move it into the directions of the frozen part.

Orthogonal subspace fine-tuning (arXiv 2504.07097, PEFT's OSF): the gradients of ``U`` and ``V`` lose what
lies in the span of the frozen singular vectors before the optimiser sees them. PEFT keeps those ``n - k``
vectors of a layer and multiplies by them; their complement has ``k``, and projecting onto it is the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from effort_finetune.model.layers import residual_layers, wide
from effort_finetune.model.regularisers import frozen_bases


class GradientProjection(nn.Module):
    """Projects the gradients of a tower's residuals from now on.

    The bases follow from the frozen weights alone, so that a resumed run has the same ones. They are kept in
    non-persistent buffers, which move with the model.

    Args:
        tower: A module with decomposed layers whose ``U_residual`` and ``V_residual`` are trained.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        for number, layer in enumerate(residual_layers(tower).values()):
            pairs = zip(
                (layer.U_residual, layer.V_residual), frozen_bases(layer, of_start=False), strict=True
            )
            for side, (parameter, (basis, complement)) in zip("UV", pairs, strict=True):
                if parameter.requires_grad:
                    name = f"{side}_{number}"
                    self.register_buffer(name, basis, persistent=False)
                    parameter.register_hook(self._hook(name, complement, transposed=side == "V"))

    def _hook(self, name: str, complement: bool, *, transposed: bool) -> Callable[[Tensor], Tensor]:
        def project(gradient: Tensor) -> Tensor:
            columns = gradient.mT if transposed else gradient
            projected = onto(self.get_buffer(name), columns, complement=complement)
            return projected.mT if transposed else projected

        return project


@torch.no_grad()
def onto(basis: Tensor, columns: Tensor, *, complement: bool) -> Tensor:
    """Returns what of ``columns [n, k]`` lies outside the frozen part's span, in their dtype.

    Args:
        basis: Orthonormal ``[n, j]``.
        columns: Gradients, one a column.
        complement: Whether ``basis`` spans what the frozen part does not reach, or what it does.
    """
    full = wide(columns)
    inside = basis @ (basis.mT @ full)
    return (inside if complement else full - inside).to(columns.dtype)
