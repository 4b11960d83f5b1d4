"""Splits a weight into its main part and its k smallest singular triplets (arXiv 2411.15633, eq. 1-3).

``W = main + U diag(S) V`` with ``U [n, k]``, ``S [k]`` descending and ``V [k, m]``: the names and
the orientation of the Effort checkpoints. All arithmetic is float64.

Finding a few small triplets does not need a full SVD: they are the dominant triplets of the
inverse, so one LU factorisation and subspace iteration with Rayleigh-Ritz find them. What comes
out is checked against ``W v = s u`` and ``W^T u = s v``; a full SVD takes over where it fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from effort_finetune.core.errors import UserError

Method = Literal["inverse_iteration", "full"]

# Below this size a full SVD costs less than the iteration's overhead.
_SMALLEST_ITERATED = 64
# From this share of the triplets on, a full SVD is as fast (1024 x 1024: k = 64 gains little).
_LARGEST_SHARE = 1 / 16
_OVERSAMPLING = 8
_MAX_ITERATIONS = 40
# Accepted residual of the triplets, relative to the Frobenius norm of W; float64 rounding is 1e-16.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Split:
    """A decomposed weight; ``main + U @ diag(S) @ V`` is the weight to the last bit or so.

    Attributes:
        main: The frozen part, ``[n, m]``, in the weight's dtype.
        U: Left singular vectors of the residual, ``[n, k]``, in the weight's dtype.
        S: Singular values of the residual, ``[k]``, descending, in the weight's dtype.
        V: Right singular vectors of the residual as rows, ``[k, m]``, in the weight's dtype.
        method: How the triplets were found.
    """

    main: Tensor
    U: Tensor
    S: Tensor
    V: Tensor
    method: Method


@dataclass(frozen=True)
class Triplets:
    """The k smallest singular triplets of a weight in float64: ``U [n, k]``, ``S [k]``, ``V [k, m]``."""

    U: Tensor
    S: Tensor
    V: Tensor
    method: Method


def split(weight: Tensor, rank: int) -> Split:
    """Splits a weight into a frozen main part and a residual of the ``rank`` smallest singular values.

    Args:
        weight: ``[n, m]``, any floating dtype, any device; not changed.
        rank: Number of triplets of the residual, 1 to ``min(n, m)``. Upstream's ``r`` is
            ``min(n, m) - rank``.

    Raises:
        UserError: If the rank is out of bounds or the weight is not a finite matrix.
    """
    return assemble(weight, smallest_triplets(weight, rank))


def assemble(weight: Tensor, triplets: Triplets) -> Split:
    """Subtracts the triplets, as rounded to the weight's dtype, from the weight.

    Subtracting what is stored (not the exact triplets) is what makes ``main + residual`` give
    the weight back; a rebuild from the large triplets is some 60 times less exact.
    """
    dtype, device = weight.dtype, weight.device
    u, s, v = (t.to(device=device, dtype=dtype) for t in (triplets.U, triplets.S, triplets.V))
    exact = torch.addmm(_precise(weight), _precise(u) * _precise(s), _precise(v), alpha=-1)
    main = exact.to(device=device, dtype=dtype)
    return Split(main=main, U=u.contiguous(), S=s, V=v.contiguous(), method=triplets.method)


def smallest_triplets(weight: Tensor, rank: int) -> Triplets:
    """Finds the ``rank`` smallest singular triplets in float64, on the CPU.

    Signs, and the basis inside a cluster of equal singular values, are arbitrary, as in any SVD. They lie in
    memory as they do when read back from a file: a product's last bit depends on it.

    Args:
        weight: ``[n, m]``; see :func:`split`.
        rank: Number of triplets.

    Raises:
        UserError: As in :func:`split`.
    """
    check(weight, rank)
    w = _precise(weight)
    n, m = w.shape
    if n == m and n >= _SMALLEST_ITERATED and rank <= n * _LARGEST_SHARE:
        found = _inverse_iteration(w, rank)
        if found is not None:
            return found
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    return _row_major(u[:, -rank:], s[-rank:], v[-rank:], "full")


def residual_error(weight: Tensor, triplets: Triplets) -> float:
    """Returns how far the triplets are from being singular triplets, relative to ``||W||_F``.

    The largest of ``||W v - s u||``, ``||W^T u - s v||`` and the loss of orthonormality.
    """
    w = _precise(weight)
    u, s, v = _precise(triplets.U), _precise(triplets.S), _precise(triplets.V)
    scale = torch.linalg.norm(w).clamp_min(torch.finfo(w.dtype).tiny)
    eye = torch.eye(s.numel(), dtype=w.dtype)
    errors = torch.stack(
        [
            torch.linalg.norm(w @ v.T - u * s) / scale,
            torch.linalg.norm(w.T @ u - v.T * s) / scale,
            torch.linalg.norm(u.T @ u - eye),
            torch.linalg.norm(v @ v.T - eye),
        ]
    )
    return float(errors.max())  # NaN stays NaN, and fails every comparison


def check(weight: Tensor, rank: int) -> None:
    """Refuses what cannot be decomposed.

    Raises:
        UserError: If the rank is out of bounds or the weight is not a finite matrix.
    """
    shape = "x".join(map(str, weight.shape))
    if weight.ndim != 2 or not weight.is_floating_point():
        raise UserError("weight to decompose", got=f"{weight.dtype} {shape}", expected="a floating matrix")
    largest = min(weight.shape)
    if not 1 <= rank <= largest:
        raise UserError(
            "residual_rank", got=rank, expected=f"1 to {largest} (the smaller side of a {shape} weight)"
        )
    if not torch.isfinite(weight).all():
        raise UserError("weight to decompose", got=f"NaN or infinity in a {shape} weight", expected="numbers")


def _inverse_iteration(w: Tensor, rank: int) -> Triplets | None:
    """Subspace iteration with the inverse of a square ``w``; ``None`` when it does not converge."""
    n = w.shape[0]
    scale = float(torch.linalg.norm(w))
    if scale == 0.0:
        return None
    lu, pivots = torch.linalg.lu_factor_ex(w)[:2]
    _lift_zero_pivots(lu, scale)
    width = min(n, rank + _OVERSAMPLING)
    # A fixed start makes the decomposition a function of the weight alone.
    start = torch.randn(n, width, dtype=w.dtype, generator=torch.Generator().manual_seed(0))
    left = torch.linalg.qr(start).Q
    for iteration in range(1, _MAX_ITERATIONS + 1):
        right = _orthonormal(torch.linalg.lu_solve(lu, pivots, left))
        left = _orthonormal(torch.linalg.lu_solve(lu, pivots, right, adjoint=True))
        if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
            return None
        if iteration % 2:
            continue
        found = _rayleigh_ritz(w, left, right, rank)
        if residual_error(w, found) <= _TOLERANCE:
            return found
    return None


def _rayleigh_ritz(w: Tensor, left: Tensor, right: Tensor, rank: int) -> Triplets:
    """The best ``rank`` small triplets inside the spaces spanned by ``left`` and ``right``."""
    u, s, v = torch.linalg.svd(left.T @ (w @ right))
    return _row_major((left @ u)[:, -rank:], s[-rank:], (v @ right.T)[-rank:], "inverse_iteration")


def _row_major(u: Tensor, s: Tensor, v: Tensor, method: Method) -> Triplets:
    return Triplets(U=u.contiguous(), S=s.contiguous(), V=v.contiguous(), method=method)


def _lift_zero_pivots(lu: Tensor, scale: float) -> None:
    """Replaces pivots of a singular matrix by rounding-sized ones, in place.

    The standard step of inverse iteration: it perturbs W by its own rounding error, and the
    solves then point into the null space, which is what is sought.
    """
    pivots = lu.diagonal()
    floor = torch.finfo(lu.dtype).eps * scale
    pivots.copy_(torch.where(pivots.abs() < floor, torch.full_like(pivots, floor), pivots))


def _orthonormal(block: Tensor) -> Tensor:
    # Columns differ by many orders of magnitude after a solve; scaling them first keeps QR finite.
    return torch.linalg.qr(block / block.norm(dim=0).clamp_min(torch.finfo(block.dtype).tiny)).Q


def _precise(tensor: Tensor) -> Tensor:
    return tensor.detach().to(device="cpu", dtype=torch.float64)
