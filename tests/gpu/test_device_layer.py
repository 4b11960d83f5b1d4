"""The factored layer on an accelerator computes what it computes on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from effort_finetune.model.layers import RESIDUAL_NAMES, SVDResidualLinear

pytestmark = pytest.mark.gpu


def layer_and_input(rank: int, bias: bool) -> tuple[SVDResidualLinear, torch.Tensor]:
    torch.manual_seed(0)
    return SVDResidualLinear.from_linear(nn.Linear(96, 64, bias=bias), rank), torch.randn(4, 17, 96)


@pytest.mark.parametrize("rank", [1, 4, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_float32_outputs_and_gradients_are_the_cpus(device, rank, bias):
    layer, x = layer_and_input(rank, bias)
    there, x_there = copy.deepcopy(layer).to(device), x.to(device)
    weight = torch.randn(64)
    (layer(x) @ weight).sum().backward()
    y = there(x_there)
    (y @ weight.to(device)).sum().backward()
    torch.testing.assert_close(y.cpu(), layer(x), rtol=1e-4, atol=1e-5)
    for name in RESIDUAL_NAMES:
        ours, theirs = getattr(layer, name).grad, getattr(there, name).grad
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-3, atol=1e-4)
    assert there.weight_main.grad is None


@pytest.mark.parametrize("merged", [False, True])
def test_bf16_keeps_a_residual_under_the_rounding_step(device, merged):
    layer, x = layer_and_input(1, bias=True)
    with torch.no_grad():
        layer.weight_main.fill_(1.0)
        layer.S_residual.fill_(1e-3 * 96)
        layer.U_residual.fill_(1.0)
        layer.V_residual.fill_(1 / 96)
    exact = layer(x.double().float())
    layer.to(device)
    if merged:
        layer.merge()
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
        on, y = x.to(device), layer(x.to(device))
        with layer.disabled():
            off = layer(on)
    assert y.dtype == torch.bfloat16
    # The residual is 1e-3 of every weight: all of it would be lost in a bf16 sum with them.
    contribution = (exact - nn.functional.linear(x, torch.ones(64, 96), layer.bias.cpu())).abs().mean()
    assert (y.float() - off.float()).abs().mean().cpu() > 0.1 * contribution


def test_a_merged_layer_moves_with_its_weight(device):
    layer, x = layer_and_input(4, bias=True)
    layer.merge()
    expected = layer(x)
    layer.to(device)
    torch.testing.assert_close(layer(x.to(device)).cpu(), expected, rtol=1e-4, atol=1e-5)
