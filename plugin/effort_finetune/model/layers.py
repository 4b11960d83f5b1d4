"""The linear layer of Effort: a frozen main weight plus a trainable low-rank residual.

Parameter names on disk are upstream's: ``weight_main``, ``S_residual``, ``U_residual``,
``V_residual``, ``bias``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effort_finetune.core.errors import UserError
from effort_finetune.model.factored import Factors, apply_factors, factored_linear, factors
from effort_finetune.svd.decompose import Split, split

RESIDUAL_NAMES = ("S_residual", "U_residual", "V_residual")
_LOW_PRECISION = (torch.bfloat16, torch.float16)


class SVDResidualLinear(nn.Module):
    """``y = x (main + U diag(S) V)^T + b`` with ``main`` frozen (arXiv 2411.15633, eq. 3).

    The residual stays factored in the forward and the backward pass: the dense weight and its
    dense gradient are never built. :meth:`merge` builds the dense weight once for inference.

    Shapes: ``weight_main [n, m]``, ``S_residual [k]``, ``U_residual [n, k]``,
    ``V_residual [k, m]``, ``bias [n]`` or ``None``; input ``[..., m]``, output ``[..., n]``.

    Args:
        in_features: m.
        out_features: n.
        rank: k, from 1 to ``min(n, m)``.
        bias: Whether there is a bias.
        device: Where the (uninitialised) parameters are made, e.g. ``"meta"``.
        dtype: Their dtype.

    Raises:
        UserError: If the rank is out of bounds.
    """

    weight_main: nn.Parameter
    S_residual: nn.Parameter
    U_residual: nn.Parameter
    V_residual: nn.Parameter
    bias: nn.Parameter | None
    residual_energy_ref: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= rank <= min(in_features, out_features):
            raise UserError(
                "residual_rank",
                got=rank,
                expected=f"1 to {min(in_features, out_features)} for a {out_features}x{in_features} weight",
            )
        self.in_features, self.out_features, self.rank = in_features, out_features, rank

        def empty(*shape: int) -> Tensor:
            return torch.empty(*shape, device=device, dtype=dtype)

        self.weight_main = nn.Parameter(empty(out_features, in_features), requires_grad=False)
        self.S_residual = nn.Parameter(empty(rank))
        self.U_residual = nn.Parameter(empty(out_features, rank))
        self.V_residual = nn.Parameter(empty(rank, in_features))
        self.register_parameter(
            "bias", nn.Parameter(empty(out_features), requires_grad=False) if bias else None
        )
        # Set by the singular-value loss only: the default state dict has upstream's keys and no other.
        self.register_buffer("residual_energy_ref", None)
        self.loads = 0
        self._merged = False
        # No buffer: a state dict saved while merged is that of the unmerged layer.
        self._ready: _Ready | None = None
        self._dense: tuple[tuple[int, ...], Tensor] | None = None
        self._residual_on = True

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, rank: int, *, decompose: Callable[[Tensor, int], Split] = split
    ) -> SVDResidualLinear:
        """Decomposes a linear layer; dtype, device and training flag are kept.

        Args:
            linear: The layer to replace; not changed. On the meta device only shapes are made.
            rank: k.
            decompose: :func:`~effort_finetune.svd.decompose.split` or a cached form of it.
        """
        weight = linear.weight
        layer = cls(
            linear.in_features,
            linear.out_features,
            rank,
            bias=linear.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        layer.train(linear.training)
        if weight.is_meta:
            return layer
        parts = decompose(weight.detach(), rank)
        with torch.no_grad():
            layer.weight_main.copy_(parts.main)
            layer.U_residual.copy_(parts.U)
            layer.S_residual.copy_(parts.S)
            layer.V_residual.copy_(parts.V)
            if layer.bias is not None:
                layer.bias.copy_(linear.bias)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[..., m]`` to ``[..., n]``."""
        if not self._residual_on:
            return F.linear(x, self.weight_main, self.bias)
        dtype = self.weight_main.dtype
        if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:  # as autocast itself
            dtype = torch.get_autocast_dtype(x.device.type)
            x = x.to(dtype)
        if self._merged:
            return apply_factors(x, self._kept(dtype, self._merged_weights))
        main: Tensor = self.weight_main
        bias: Tensor | None = self.bias
        if main.dtype != dtype and not main.requires_grad:
            cast = self._kept(dtype, self._cast_weights)
            main = cast.main
            bias = bias if bias is not None and bias.requires_grad else cast.bias
        return factored_linear(x, main.to(dtype), bias, self.U_residual, self.S_residual, self.V_residual)

    def _kept(self, dtype: torch.dtype, make: Callable[[torch.dtype], Factors]) -> Factors:
        """Returns what ``make`` makes of constant weights; made once for a dtype, and not every step."""
        made_of = (dtype, self.weight_main.device, _version(self.weight_main), _version(self.bias))
        if self._ready is None or self._ready.made_of != made_of:
            # Not an inference tensor: an evaluation's copy may meet a gradient afterwards.
            with torch.inference_mode(False), torch.no_grad():
                self._ready = _Ready(make(dtype), made_of)
        return self._ready.weights

    def _cast_weights(self, dtype: torch.dtype) -> Factors:
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        return Factors(self.weight_main.detach().to(dtype), bias)

    def _merged_weights(self, dtype: torch.dtype) -> Factors:
        """Returns a merged layer's dense weight, or in bf16 and fp16 its factors.

        Rounded to bf16, a dense weight swallows a residual that lies under its rounding step: in low
        precision the factors are applied apart.
        """
        main, bias, *_ = cast = self._cast_weights(dtype)
        if dtype not in _LOW_PRECISION:
            return cast._replace(main=self.effective_weight().to(dtype))
        u, s, v = (p.detach() for p in (self.U_residual, self.S_residual, self.V_residual))
        return factors(main, bias, u, s, v)

    def effective_weight(self) -> Tensor:
        """Returns ``main + U diag(S) V`` as a new float32 (or float64) ``[n, m]`` tensor, without gradient.

        Summed in float64 where the device has it, so that a fresh decomposition gives its weight back.
        """
        dtype = torch.float64 if self.weight_main.dtype == torch.float64 else torch.float32
        precise = dtype if self.weight_main.device.type == "mps" else torch.float64
        with torch.inference_mode(False), torch.no_grad():
            main, u, s, v = (
                p.detach().to(precise)
                for p in (self.weight_main, self.U_residual, self.S_residual, self.V_residual)
            )
            return torch.addmm(main, u * s, v).to(dtype)

    @property
    def weight(self) -> Tensor:
        """The dense weight without gradient, for libraries that ask a linear layer for it (PEFT's DoRA).

        Kept until a part of it changes.
        """
        parts = (self.weight_main, self.U_residual, self.S_residual, self.V_residual)
        made_of = tuple(number for part in parts for number in (part._version, part.data_ptr()))
        if self._dense is None or self._dense[0] != made_of:
            self._dense = made_of, self.effective_weight()
        return self._dense[1]

    def residual_energy(self) -> Tensor:
        """Returns ``||main + R||_F^2 - ||main||_F^2`` as a float32 (or wider) scalar with gradient.

        Computed as ``2 sum_i s_i u_i^T main v_i + ||R||_F^2``, both from the factors.
        """
        main, u, s, v = (
            wide(p) for p in (self.weight_main, self.U_residual, self.S_residual, self.V_residual)
        )
        overlap = (u.mT * F.linear(v, main)).sum(dim=1) @ s
        return 2 * overlap + s @ ((u.mT @ u) * (v @ v.mT)) @ s

    @property
    def merged(self) -> bool:
        """Whether the weights are held ready for inference."""
        return self._merged

    def merge(self) -> None:
        """Declares the weights constant until :meth:`unmerge`, ``train()`` or a load.

        The next forward pass builds the dense weight for its precision and keeps it; one that
        computes in bf16 or fp16 (dtype or autocast) keeps the factors. The parameters stay as they
        are, so unmerging restores the layer to the bit. Call it again after changing a weight.
        """
        self._merged, self._ready = True, None

    def unmerge(self) -> None:
        """Undoes :meth:`merge`; does nothing when the layer is not merged."""
        self._merged, self._ready = False, None

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context the layer is its frozen main part alone."""
        before, self._residual_on = self._residual_on, False
        try:
            yield
        finally:
            self._residual_on = before

    def train(self, mode: bool = True) -> SVDResidualLinear:
        """Sets training mode; a merged weight would go stale, so training drops it."""
        if mode:
            self.unmerge()
        self._ready = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> SVDResidualLinear:
        self._ready = self._dense = None  # moved or converted weights: what was made of them is stale
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": None, "_dense": None}  # a copy or a pickle makes its own

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self.unmerge()
        self.loads += 1
        # The reference belongs to one loss term: a file with it loads into a model without, and one without
        # it (every upstream file) into a model with, whose reference it then is. What a resumed run trained
        # comes without main: it is no start.
        key = f"{prefix}residual_energy_ref"
        given, is_start = state_dict.pop(key, None), f"{prefix}weight_main" in state_dict
        reference, self.residual_energy_ref = self.residual_energy_ref, None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if reference is not None:
            kept = self.residual_energy().detach() if is_start else reference
            found = kept if given is None else given
            self.residual_energy_ref = found.to(reference)

    def extra_repr(self) -> str:
        """Describes the layer in ``print(model)``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"rank={self.rank}, bias={self.bias is not None}, merged={self.merged}"
        )


class _Ready(NamedTuple):
    """Weights that are kept between forward passes, and what they were made for and of."""

    weights: Factors
    made_of: tuple[torch.dtype, torch.device, int | None, int | None]


def _version(tensor: Tensor | None) -> int | None:
    return None if tensor is None or tensor.is_inference() else tensor._version


def wide(tensor: Tensor) -> Tensor:
    """Returns the tensor in float32 when it is in a lower precision, else as it is."""
    return tensor.float() if tensor.dtype in _LOW_PRECISION else tensor


def residual_layers(module: nn.Module) -> dict[str, SVDResidualLinear]:
    """Returns the decomposed layers of a module by their names in it."""
    return {name: m for name, m in module.named_modules() if isinstance(m, SVDResidualLinear)}


@contextmanager
def residuals_disabled(module: nn.Module) -> Iterator[None]:
    """Switches all residuals of a module off within the context (see :meth:`SVDResidualLinear.disabled`)."""
    with ExitStack() as stack:
        for layer in residual_layers(module).values():
            stack.enter_context(layer.disabled())
        yield
