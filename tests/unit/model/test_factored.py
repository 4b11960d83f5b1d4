"""The product of a factored layer: each gradient alone, and what low precision leaves of them."""

import copy

import pytest
import torch
from torch import nn

from effort_finetune.model.layers import SVDResidualLinear


@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 0, 5), (2, 3, 4, 5)])
def test_any_number_of_leading_dimensions(shape):
    linear = nn.Linear(5, 7)
    layer = SVDResidualLinear.from_linear(linear, 2)
    x = torch.randn(shape, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, linear(x))
    y.sum().backward()
    assert x.grad.shape == shape
    with torch.no_grad():
        torch.testing.assert_close(layer(x), linear(x))


@pytest.mark.parametrize("trained", ["weight_main", "bias", "U_residual", "S_residual", "V_residual", "x"])
def test_gradients_of_each_argument_alone(trained):
    layer = SVDResidualLinear.from_linear(nn.Linear(6, 4, dtype=torch.float64), 2)
    x = torch.randn(3, 6, dtype=torch.float64)
    tensors = {"x": x, **dict(layer.named_parameters())}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name == trained)
    u, s, v = (tensors[f"{n}_residual"] for n in "USV")
    dense = x @ (tensors["weight_main"] + u @ torch.diag(s) @ v).T + tensors["bias"]
    target = torch.randn_like(dense)
    (expected,) = torch.autograd.grad((dense * target).sum(), tensors[trained])
    (layer(x) * target).sum().backward()
    torch.testing.assert_close(tensors[trained].grad, expected)
    assert [name for name, t in tensors.items() if t.grad is not None] == [trained]


def test_no_graph_without_a_gradient_to_compute():
    layer = SVDResidualLinear.from_linear(nn.Linear(6, 4), 2).requires_grad_(False)
    assert not layer(torch.randn(3, 6)).requires_grad


def test_second_derivatives_are_refused_not_wrong():
    layer = SVDResidualLinear.from_linear(nn.Linear(5, 4), 2)
    x = torch.randn(3, 5, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_a_small_residual_gets_outputs_and_gradients_as_exact_as_the_dtype(dtype, step, merged):
    """Within a few rounding steps of float64, also where ``U S`` (1e-6) leaves the range of fp16."""
    torch.manual_seed(0)
    layer = SVDResidualLinear.from_linear(nn.Linear(64, 64), 2).eval()
    with torch.no_grad():
        layer.S_residual.copy_(torch.tensor([1e-3, 1e-5]))
    x, direction = torch.randn(50, 64), 256 * torch.randn(50, 64)  # scaled, as fp16 needs it
    found = {}
    for precise in (False, True):
        tried = copy.deepcopy(layer).double() if precise else layer
        if merged and not precise:
            tried.merge()
        rows = (x.double() if precise else x.clone()).requires_grad_()
        with torch.autocast("cpu", dtype, enabled=not precise):
            y = tried(rows)
        wanted = [rows] if merged else [rows, tried.U_residual, tried.S_residual, tried.V_residual]
        gradients = torch.autograd.grad(y, wanted, direction.to(y.dtype))
        found[precise] = [
            y,
            *gradients[:2],
            *(part.mT if part.dim() == 2 else part for part in gradients[2:]),
        ]
    for got, exact in zip(found[False], found[True], strict=True):
        assert got.dtype in (dtype, torch.float32)
        # Each singular vector by itself: those of a small singular value have small gradients.
        for ours, truth in (
            zip(got.double().mT, exact.mT, strict=True) if exact.dim() == 2 else [(got, exact)]
        ):
            assert (ours - truth).norm() < 4 * step * truth.norm()
