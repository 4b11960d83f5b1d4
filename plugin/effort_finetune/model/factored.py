"""``y = x (main + U diag(S) V)^T + b`` without the dense sum, forward and backward.

Written as one autograd function because the plain composition costs two more passes over the
activations in each direction: adding the low-rank output to the dense one, and the engine's adding
up of the input's two gradients. On a CPU in bf16 such a pass costs a tenth of the dense product, so
each thin product is written in the form that reads its operands once, in the order they lie in memory.
On a fast GPU the passes are short and the number of operations counts: whatever has the residual's
own size (casts, products with S) is done there, and none of it on the activations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_ROW_MAJOR = torch.contiguous_format


class Factors(NamedTuple):
    """A layer's weights in the dtype that it computes in.

    Attributes:
        main: ``[n, m]``.
        bias: ``[n]`` or ``None``.
        u: ``U diag(S)``, ``[n, k]``; U alone in fp16. Without it and V, ``main`` is the whole weight.
        s: ``[k]`` in fp16, else ``None``: small singular values would take U out of the range of fp16.
        v: ``[k, m]``.
    """

    main: Tensor
    bias: Tensor | None = None
    u: Tensor | None = None
    s: Tensor | None = None
    v: Tensor | None = None


def factors(main: Tensor, bias: Tensor | None, u: Tensor, s: Tensor, v: Tensor) -> Factors:
    """Casts a layer's parameters to the dtype of ``main``; U and S are multiplied in their own."""
    dtype = main.dtype
    bias = None if bias is None else bias.to(dtype)
    if dtype == torch.float16:
        return Factors(main, bias, u.to(dtype), s, v.to(dtype))
    return Factors(main, bias, (u * s).to(dtype), None, v.to(dtype))


def factored_linear(x: Tensor, main: Tensor, bias: Tensor | None, u: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Applies a main weight and a low-rank residual.

    Args:
        x: ``[..., m]``.
        main: ``[n, m]``, in the dtype of ``x``.
        bias: ``[n]`` or ``None``, in any dtype.
        u: ``[n, k]``, in any dtype.
        s: ``[k]``, in any dtype.
        v: ``[k, m]``, in any dtype.

    Returns:
        ``[..., n]`` in the dtype of ``x``. Gradients go to every argument that requires one, in its
        dtype; they are first derivatives only.
    """
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    if torch.is_grad_enabled():
        y: Tensor = _FactoredLinear.apply(rows, main, bias, u, s, v)
    else:
        y = _forward(rows, factors(main, bias, u, s, v))[0]
    return y.view(*x.shape[:-1], main.shape[0])


def apply_factors(x: Tensor, weights: Factors) -> Tensor:
    """Does what :func:`factored_linear` does, with weights that are ready and get no gradient."""
    if weights.u is None:
        return F.linear(x, weights.main, weights.bias)
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return _forward(rows, weights)[0].view(*x.shape[:-1], weights.main.shape[0])


def _forward(x: Tensor, weights: Factors) -> tuple[Tensor, Tensor]:
    """Returns the output and ``x V^T [N, k]``."""
    main, bias, u, s, v = weights
    assert u is not None, "weights in one piece need no factors"
    assert v is not None
    projected = _thin(x, v)
    left, right = _times(projected, s), u.mT
    if bias is not None and x.device.type == "cpu":
        # One more column of the thin product: the dense one then has no second pass for the bias.
        left, right = torch.cat((left, left.new_ones(len(left), 1)), dim=1), torch.cat((right, bias[None]))
        bias = None
    return F.linear(x, main, bias).addmm_(left, right), projected


def _times(rows: Tensor, s: Tensor | None) -> Tensor:
    return rows if s is None else (rows * s).to(rows.dtype)


def _thin(x: Tensor, rows: Tensor) -> Tensor:
    """Returns ``x rows^T``; for a single row as the matrix-vector product that it is, faster in bf16."""
    return torch.mv(x, rows[0])[:, None] if len(rows) == 1 else F.linear(x, rows)


class _FactoredLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, main: Tensor, bias: Tensor | None, u: Tensor, s: Tensor, v: Tensor
    ) -> Tensor:
        made = factors(main, bias, u, s, v)
        y, projected = _forward(x, made)
        # Where this layer trains nothing, and the gradient only passes through, its input is not needed.
        _, main_wanted, _, u_wanted, s_wanted, v_wanted = ctx.needs_input_grad
        ctx.save_for_backward(
            x if main_wanted or v_wanted else None,
            projected if u_wanted or s_wanted else None,
            u,
            s,
            *made,
        )
        ctx.dtypes = tuple(None if p is None else p.dtype for p in (bias, u, s, v))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, projected, u, s, main, _, made_u, made_s, v = ctx.saved_tensors
        bias_dtype, u_dtype, s_dtype, v_dtype = ctx.dtypes
        x_wanted, main_wanted, bias_wanted, u_wanted, s_wanted, v_wanted = ctx.needs_input_grad
        grad_x = grad_main = grad_bias = grad_u = grad_s = grad_v = None
        # Everything has the forward's dtype already; autocast around backward() must not change it.
        with torch.autocast(grad.device.type, enabled=False):
            if x_wanted or v_wanted:
                onto_us = _times(_thin(grad, made_u.mT.contiguous()), made_s)
            if x_wanted:
                grad_x = (grad @ main).addmm_(onto_us, v)
            if main_wanted:
                grad_main = grad.mT @ x
            if bias_wanted:
                grad_bias = grad.sum(dim=0).to(bias_dtype)
            if v_wanted:
                grad_v = (onto_us.mT @ x).to(v_dtype)
            if u_wanted or s_wanted:
                # The sum runs over the rows of both, so the product is made transposed.
                onto_v = _without_overflow(projected).mT @ _without_overflow(grad)
            if u_wanted:
                grad_u = (onto_v.to(s.dtype) * s[:, None]).to(u_dtype).mT.clone(memory_format=_ROW_MAJOR)
            if s_wanted:
                grad_s = (onto_v.to(u.dtype) * u.mT).sum(dim=1).to(s_dtype)
        return grad_x, grad_main, grad_bias, grad_u, grad_s, grad_v


def _without_overflow(rows: Tensor) -> Tensor:
    """Returns fp16 in float32: before S makes it small, the gradient of ``U S`` leaves the range of fp16."""
    return rows.float() if rows.dtype == torch.float16 else rows
