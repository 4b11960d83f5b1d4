"""``y = x (main + U diag(S) V)^T + b`` without the dense sum, forward and backward.

Written as one autograd function because the plain composition costs two more passes over the
activations in each direction: adding the low-rank output to the dense one, and the engine's adding
up of the input's two gradients. On a CPU in bf16 such a pass costs a tenth of the dense product, so
each thin product is written in the form that reads its operands once, in the order they lie in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_ROW_MAJOR = torch.contiguous_format


def factored_linear(x: Tensor, main: Tensor, bias: Tensor | None, u: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Applies a main weight and a low-rank residual.

    Args:
        x: ``[..., m]``.
        main: ``[n, m]``, in the dtype of ``x``.
        bias: ``[n]`` or ``None``, in the dtype of ``x``.
        u: ``[n, k]``, in the dtype of ``x``.
        s: ``[k]``, in any dtype: it is multiplied in its own.
        v: ``[k, m]``, in the dtype of ``x``.

    Returns:
        ``[..., n]`` in the dtype of ``x``. Gradients go to every argument that requires one; they
        are first derivatives only.
    """
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    if torch.is_grad_enabled():
        y: Tensor = _FactoredLinear.apply(rows, main, bias, u, s, v)
    else:
        y = _forward(rows, main, bias, u, s, v)[0]
    return y.view(*x.shape[:-1], main.shape[0])


def _forward(
    x: Tensor, main: Tensor, bias: Tensor | None, u: Tensor, s: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the output and ``x V^T [N, k]``."""
    projected = _thin(x, v)
    left, right = (projected * s).to(x.dtype), u.mT
    if bias is not None:  # one more column of the thin product: the dense one then has no second pass for it
        left, right = torch.cat((left, left.new_ones(len(left), 1)), dim=1), torch.cat((right, bias[None]))
    return F.linear(x, main).addmm_(left, right.contiguous()), projected


def _thin(x: Tensor, rows: Tensor) -> Tensor:
    """Returns ``x rows^T``; for a single row as the matrix-vector product that it is, faster in bf16."""
    return torch.mv(x, rows[0])[:, None] if len(rows) == 1 else F.linear(x, rows)


class _FactoredLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, main: Tensor, bias: Tensor | None, u: Tensor, s: Tensor, v: Tensor
    ) -> Tensor:
        y, projected = _forward(x, main, bias, u, s, v)
        # Where this layer trains nothing, and the gradient only passes through, its input is not needed.
        _, main_wanted, _, u_wanted, s_wanted, v_wanted = ctx.needs_input_grad
        ctx.save_for_backward(
            x if main_wanted or v_wanted else None, main, u, s, v, projected if u_wanted or s_wanted else None
        )
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, main, u, s, v, projected = ctx.saved_tensors
        x_wanted, main_wanted, bias_wanted, u_wanted, s_wanted, v_wanted = ctx.needs_input_grad
        grad_x = grad_main = grad_bias = grad_u = grad_s = grad_v = None
        # Everything has the forward's dtype already; autocast around backward() must not change it.
        with torch.autocast(grad.device.type, enabled=False):
            if x_wanted or s_wanted or v_wanted:
                onto_u = _thin(grad, u.mT.contiguous())
                grad_projected = (onto_u * s).to(grad.dtype)
            if x_wanted:
                grad_x = (grad @ main).addmm_(grad_projected, v)
            if main_wanted:
                grad_main = grad.mT @ x
            if bias_wanted:
                grad_bias = grad.sum(dim=0)
            if u_wanted:  # the sum runs over rows of both operands, so the product is made transposed
                grad_u = ((projected * s).to(grad.dtype).mT @ grad).mT.clone(memory_format=_ROW_MAJOR)
            if s_wanted:
                grad_s = (onto_u.to(s.dtype) * projected.to(s.dtype)).sum(dim=0)
            if v_wanted:
                grad_v = grad_projected.mT @ x
        return grad_x, grad_main, grad_bias, grad_u, grad_s, grad_v
