"""The paper's two regularisers, exact, without any n x n product (arXiv 2411.15633, eq. 4 and 6).

**Orthogonality.** Let ``U_r`` be the left singular vectors of ``main`` (frozen, orthonormal). Then

    ||[U_r U]^T [U_r U] - I||_F^2 = ||U^T U - I||_F^2 + 2 ||U_r^T U||_F^2.

On a side as long as the rank of the weight (both sides of a square one), ``U_r U_r^T = I - U0 U0^T``
with ``U0 [n, k]`` a basis of what ``main`` does not reach, so with ``D = U - U0``, ``A = U0^T D`` and
``B = D^T D`` the two terms are ``||A + A^T + B||_F^2`` and ``2 (tr B - ||A||_F^2)``: O(n k^2), and
exact near the start, where ``||U^T U||^2 + k - 2 ||U0^T U||^2`` would cancel. On a longer side
``U_r`` itself is kept. Likewise for V. The released code's (unused) definition takes half the root
of each side's ``||[U_r U][U_r U]^T - I||_F^2``, which is the same number plus the side's excess
length over the rank.

**Singular values.** ``| ||main + R||_F^2 - ||W||_F^2 |`` needs only the residual's energy,
``||main + R||_F^2 - ||main||_F^2 = 2 sum_i s_i u_i^T main v_i + ||R||_F^2``, now and at the start.
The start's value is the buffer ``residual_energy_ref`` of each layer, so that a resumed run keeps it;
a checkpoint without it starts from the energy it has.

Both are means over the decomposed layers (eq. 7).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effort_finetune.config import Loss
from effort_finetune.core.errors import UserError
from effort_finetune.model.layers import SVDResidualLinear, residual_layers, wide
from effort_finetune.svd.cache import cached_triplets

# A residual is still the initial one when main annihilates it and it is orthonormal, to rounding.
_UNTOUCHED = 1e-5


@dataclass(frozen=True)
class _Kind:
    """What two sides of layers must share to be computed in one batch.

    Attributes:
        shape: Of the frozen basis.
        rank: Residual rank k.
        complement: Whether the basis is what ``main`` does not reach, or what it does.
        excess: The side's length less the weight's rank, which the released definition counts.
    """

    shape: torch.Size
    rank: int
    complement: bool
    excess: int


class Regulariser(nn.Module):
    """Computes the regularisers of a tower's decomposed layers.

    The frozen bases follow from the weights: they are built at the first call, kept in
    non-persistent buffers, and built anew after weights were loaded. Those that were made of a residual
    which training then moved follow from nothing any more: a run keeps them in its state.

    Args:
        tower: A module with decomposed layers; those without a ``residual_energy_ref`` buffer
            get one when ``ksv_weight`` is not 0. The tower is not kept.
        settings: Weights and form.

    Raises:
        UserError: If no layer is decomposed, or a main weight is trained: both terms measure the
            residual against a fixed one.
    """

    def __init__(self, tower: nn.Module, settings: Loss) -> None:
        super().__init__()
        self.settings = settings
        layers = residual_layers(tower)
        trained = [name for name, layer in layers.items() if layer.weight_main.requires_grad]
        if not layers or trained:
            raise UserError(
                "loss.orth_weight and loss.ksv_weight",
                got=f"a trained {trained[0]}.weight_main" if trained else "no decomposed layer",
                expected="decomposed layers with a frozen main weight",
                next_step="set both weights to 0",
            )
        if settings.ksv_weight > 0:
            for layer in layers.values():
                if layer.residual_energy_ref is None:
                    layer.residual_energy_ref = layer.residual_energy().detach()
        self._built_for: tuple[int, torch.device] | None = None
        self._groups: dict[_Kind, list[tuple[int, str]]] = {}
        self._of_start: dict[str, Tensor] = {}

    def start_bases(self) -> dict[str, Tensor]:
        """Returns the bases of what ``main`` does not reach, on the CPU; empty before the first call."""
        if self._of_start:
            return self._of_start
        found = {f"basis_{number}": kind.complement for number, kind in enumerate(self._groups)}
        return {name: self.get_buffer(name).cpu() for name, complement in found.items() if complement}

    def take_start_bases(self, bases: Mapping[str, Tensor]) -> None:
        """Takes :meth:`start_bases` of the process before; they are used where bases are built next."""
        self._of_start = dict(bases)

    def forward(self, tower: nn.Module) -> dict[str, Tensor]:
        """Returns ``orth`` and ``ksv``, each where its weight is not 0, as float32 (or wider) scalars."""
        layers = list(residual_layers(tower).values())
        terms = {}
        # Under autocast the small differences measured here would be rounded away.
        with torch.autocast(layers[0].weight_main.device.type, enabled=False):
            if self.settings.orth_weight > 0:
                terms["orth"] = self._orthogonality(layers)
            if self.settings.ksv_weight > 0:
                terms["ksv"] = singular_value_loss(layers)
        return terms

    def _orthogonality(self, layers: list[SVDResidualLinear]) -> Tensor:
        state = (sum(layer.loads for layer in layers), layers[0].weight_main.device)
        if state != self._built_for:
            self._build(layers)
            self._built_for = state
        sums = []
        for index, (kind, members) in enumerate(self._groups.items()):
            vectors = torch.stack([_vectors(layers[i], side) for i, side in members])
            basis = self.get_buffer(f"basis_{index}")
            squares = orthogonality_squares(vectors, basis, complement=kind.complement)
            if self.settings.orth_form == "released":
                squares = 0.5 * _safe_sqrt(squares + kind.excess)
            sums.append(squares.sum())
        return torch.stack(sums).sum() / len(layers)

    def _build(self, layers: list[SVDResidualLinear]) -> None:
        groups: dict[_Kind, list[tuple[int, str]]] = defaultdict(list)
        bases: dict[_Kind, list[Tensor]] = defaultdict(list)
        for index, layer in enumerate(layers):
            for side, (basis, complement) in zip("UV", frozen_bases(layer), strict=True):
                excess = basis.shape[0] - min(layer.weight_main.shape)
                kind = _Kind(basis.shape, layer.rank, complement, excess)
                groups[kind].append((index, side))
                bases[kind].append(basis)
        for number, kind in enumerate(groups):
            name, basis = f"basis_{number}", torch.stack(bases[kind])
            basis = self._of_start.get(name, basis).to(basis)
            self.register_buffer(name, basis, persistent=False)
        self._of_start = {}
        self._groups = dict(groups)


def orthogonality_squares(vectors: Tensor, basis: Tensor, *, complement: bool) -> Tensor:
    """Computes ``||[B_r X]^T [B_r X] - I||_F^2`` for a batch of residual vectors.

    Args:
        vectors: X, ``[L, n, k]``; carries the gradient.
        basis: ``[L, n, k]`` orthonormal, what the frozen part does not reach, or ``[L, n, r]``
            orthonormal, the frozen part's vectors ``B_r`` themselves.
        complement: Which of the two ``basis`` is.

    Returns:
        ``[L]``.
    """
    if complement:
        moved = vectors - basis
        inner, square = basis.mT @ moved, moved.mT @ moved
        own = (inner + inner.mT + square).square().sum(dim=(1, 2))
        reached = square.diagonal(dim1=1, dim2=2).sum(dim=1) - inner.square().sum(dim=(1, 2))
    else:
        eye = torch.eye(vectors.shape[2], dtype=vectors.dtype, device=vectors.device)
        own = (vectors.mT @ vectors - eye).square().sum(dim=(1, 2))
        reached = (basis.mT @ vectors).square().sum(dim=(1, 2))
    return own + 2 * reached.clamp_min(0)


def singular_value_loss(layers: list[SVDResidualLinear]) -> Tensor:
    """Returns the mean over layers of ``| ||main + R||_F^2 - ||W||_F^2 |`` (eq. 6), a scalar.

    Args:
        layers: With ``residual_energy_ref`` set.
    """
    now = torch.stack([layer.residual_energy() for layer in layers])
    start = torch.stack([_reference(layer) for layer in layers])
    return (now - start).abs().mean()


def frozen_bases(
    layer: SVDResidualLinear, *, of_start: bool = True
) -> tuple[tuple[Tensor, bool], tuple[Tensor, bool]]:
    """Finds the frozen bases of a layer's U side and V side.

    Args:
        layer: The layer.
        of_start: Take the residual's own vectors where nothing has moved them yet; else always main's, to the
            bit the same whatever the residual has become.

    Returns:
        For each side the orthonormal basis ``[length, k or rank - k]`` in (at least) float32 on
        the layer's device, and whether it is the complement of what ``main`` reaches.
    """
    main, rank = layer.weight_main.detach(), layer.rank
    n, m = main.shape
    u0, v0 = (wide(t.detach()) for t in (layer.U_residual, layer.V_residual.mT))
    if n == m:
        if not (of_start and _untouched(wide(main), u0, v0)):
            found = cached_triplets(main, rank)
            u0, v0 = (t.to(u0) for t in (found.U, found.V.mT))
        return (u0.clone(), True), (v0.clone(), True)
    u, _, vt = torch.linalg.svd(main.to("cpu", torch.float64), full_matrices=False)
    kept = min(n, m) - rank
    short, long = (u[:, kept:], vt[:kept].mT) if n < m else (vt[kept:].mT, u[:, :kept])
    pair = (short.to(u0).contiguous(), True), (long.to(u0).contiguous(), False)
    return pair if n < m else (pair[1], pair[0])


def _untouched(main: Tensor, u: Tensor, v: Tensor) -> bool:
    eye = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
    scale = torch.linalg.norm(main)
    errors = (
        torch.linalg.norm(main.mT @ u) / scale,
        torch.linalg.norm(main @ v) / scale,
        torch.linalg.norm(u.mT @ u - eye),
        torch.linalg.norm(v.mT @ v - eye),
    )
    return all(bool(error < _UNTOUCHED) for error in errors)


def _vectors(layer: SVDResidualLinear, side: str) -> Tensor:
    return wide(layer.U_residual if side == "U" else layer.V_residual.mT)


def _reference(layer: SVDResidualLinear) -> Tensor:
    if layer.residual_energy_ref is None:
        raise RuntimeError("singular_value_loss before residual_energy_ref was set")
    return layer.residual_energy_ref


def _safe_sqrt(square: Tensor) -> Tensor:
    """Square root with gradient 0 at 0, as a norm has it."""
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
