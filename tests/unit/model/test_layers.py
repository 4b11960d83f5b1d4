import copy
import math
import pickle

import pytest
import torch
from torch import nn

from effort_finetune.core.errors import UserError
from effort_finetune.model.layers import SVDResidualLinear, residual_layers, residuals_disabled

SHAPES = [(48, 48), (64, 24), (24, 64)]
RANKS = [1, 4, 16]


class PaperLinear(nn.Module):
    """The paper's formula word for word (eq. 1-3): a dense weight rebuilt in every forward."""

    def __init__(self, linear, k):
        super().__init__()
        u, s, vh = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
        r = len(s) - k
        self.W_r = u[:, :r] @ torch.diag(s[:r]) @ vh[:r]
        self.U = nn.Parameter(u[:, r:].clone())
        self.S = nn.Parameter(s[r:].clone())
        self.V = nn.Parameter(vh[r:].clone())
        self.b = linear.bias

    def forward(self, x):
        y = x @ (self.W_r + self.U @ torch.diag(self.S) @ self.V).T
        return y if self.b is None else y + self.b


def pair(out_features, in_features, k, *, bias=True):
    """The paper's layer and ours over the same weight, started from the same singular vectors."""
    linear = nn.Linear(in_features, out_features, bias=bias, dtype=torch.float64)
    paper, ours = PaperLinear(linear, k), SVDResidualLinear.from_linear(linear, k)
    # Signs (and nothing else) of singular vectors are arbitrary: bring the paper's to ours.
    sign = torch.sign((paper.U * ours.U_residual).sum(dim=0)).detach()
    with torch.no_grad():
        paper.U *= sign
        paper.V *= sign[:, None]
    return linear, paper, ours


def gradients(layer, names, x, target):
    x = x.clone().requires_grad_()
    (layer(x) * target).sum().backward()
    return [x.grad, *(getattr(layer, name).grad for name in names)]


OURS = ("U_residual", "S_residual", "V_residual")
PAPER = ("U", "S", "V")


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("k", RANKS)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_the_papers(n, m, k, bias):
    linear, paper, ours = pair(n, m, k, bias=bias)
    x, target = torch.randn(5, 3, m).double(), torch.randn(5, 3, n).double()
    torch.testing.assert_close(ours(x), paper(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours(x), linear(x), rtol=0, atol=1e-12)
    for got, expected in zip(
        gradients(ours, OURS, x, target), gradients(paper, PAPER, x, target), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    assert ours.weight_main.grad is None


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("k", RANKS)
def test_twenty_adam_steps_end_at_the_same_parameters(n, m, k):
    _, paper, ours = pair(n, m, k)
    trained = [[getattr(layer, name) for name in names] for layer, names in ((ours, OURS), (paper, PAPER))]
    optimizers = [torch.optim.Adam(p, lr=1e-3, weight_decay=1e-4) for p in trained]
    start = [p.detach().clone() for p in trained[0]]
    for step in range(20):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(6, m, generator=generator, dtype=torch.float64)
        y = torch.randn(6, n, generator=generator, dtype=torch.float64)
        for layer, optimizer in zip((ours, paper), optimizers, strict=True):
            optimizer.zero_grad()
            (layer(x) - y).square().mean().backward()
            optimizer.step()
    for got, expected, first in zip(*trained, start, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)
        assert (got - first).abs().max() > 1e-3, "nothing was trained"


def test_no_dense_gradient_is_ever_built():
    """No tensor of the weight's shape is made by forward or backward."""
    layer = SVDResidualLinear.from_linear(nn.Linear(40, 56), 2)
    shapes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            outs = out if isinstance(out, (tuple, list)) else [out]
            views = ("t.default", "detach", "transpose", "view", "alias")
            if not any(v in str(func) for v in views):
                shapes.extend(tuple(o.shape) for o in outs if isinstance(o, torch.Tensor))
            return out

    x = torch.randn(3, 40, requires_grad=True)
    with Watch():
        layer(x).square().sum().backward()
    assert shapes
    assert not {(56, 40), (40, 56)} & set(shapes)


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("k", [1, 16])
def test_merged_forward_and_bit_exact_unmerge(n, m, k):
    layer = SVDResidualLinear.from_linear(nn.Linear(m, n), k).eval()
    with torch.no_grad():
        layer.S_residual += 0.3
    x = torch.randn(7, m)
    before = {name: p.detach().clone() for name, p in layer.state_dict().items()}
    expected = layer(x)
    layer.merge()
    assert layer.merged
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert layer.state_dict().keys() == before.keys(), "merging changed what is saved"
    layer.unmerge()
    assert not layer.merged
    assert all(torch.equal(p, before[name]) for name, p in layer.state_dict().items())
    assert torch.equal(layer(x), expected)


def test_training_and_loading_drop_a_merged_weight():
    layer = SVDResidualLinear.from_linear(nn.Linear(8, 8), 1).eval()
    state = copy.deepcopy(layer.state_dict())
    layer.merge()
    layer.train()
    assert not layer.merged
    layer.eval()
    layer.merge()
    state["S_residual"] += 1
    layer.load_state_dict(state)
    x = torch.randn(2, 8)
    dense = nn.functional.linear(x, layer.effective_weight(), layer.bias)
    torch.testing.assert_close(layer(x), dense)


def test_effective_weight_of_a_fresh_layer_is_the_weight():
    linear = nn.Linear(96, 96)
    weight = SVDResidualLinear.from_linear(linear, 4).effective_weight()
    assert weight.dtype == torch.float32
    assert (weight - linear.weight).abs().max() <= torch.finfo(torch.float32).eps * linear.weight.abs().max()


def test_disabled_is_main_alone_even_after_an_error():
    layer = SVDResidualLinear.from_linear(nn.Linear(12, 20), 3)
    x = torch.randn(4, 12)
    on = layer(x)
    main = nn.functional.linear(x, layer.weight_main, layer.bias)
    with layer.disabled():
        assert torch.equal(layer(x), main)
        with layer.disabled():
            pass
        assert torch.equal(layer(x), main), "leaving an inner context switched the residual on"
    assert torch.equal(layer(x), on)
    with pytest.raises(RuntimeError, match="boom"), layer.disabled():
        raise RuntimeError("boom")
    assert torch.equal(layer(x), on)
    assert not torch.equal(on, main)


def test_residuals_disabled_covers_every_layer():
    model = nn.Sequential(*(SVDResidualLinear.from_linear(nn.Linear(9, 9), 2) for _ in range(2)))
    assert list(residual_layers(model)) == ["0", "1"]
    x = torch.randn(3, 9)
    main = x
    for layer in model:
        main = nn.functional.linear(main, layer.weight_main, layer.bias)
    with residuals_disabled(model):
        assert torch.equal(model(x), main)
    assert not torch.equal(model(x), main)


def test_state_dict_has_upstreams_names_and_no_other():
    names = ["weight_main", "S_residual", "U_residual", "V_residual"]
    with_bias = SVDResidualLinear.from_linear(nn.Linear(6, 5), 2)
    assert list(with_bias.state_dict()) == [*names, "bias"]
    without = SVDResidualLinear.from_linear(nn.Linear(6, 5, bias=False), 2)
    assert list(without.state_dict()) == names


def test_deepcopy_is_independent():
    layer = SVDResidualLinear.from_linear(nn.Linear(10, 10), 2).eval()
    layer.merge()
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 10)
    assert torch.equal(twin(x), layer(x))
    with torch.no_grad():
        twin.unmerge()
        twin.S_residual += 1
    assert not torch.allclose(twin(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_float32_parameters(dtype):
    layer = SVDResidualLinear.from_linear(nn.Linear(32, 32), 2)
    x = torch.randn(4, 32, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        y = layer(x)
        loss = y.float().square().sum()
    loss.backward()
    assert y.dtype == dtype
    for name in OURS:
        grad = getattr(layer, name).grad
        assert grad.dtype == torch.float32
        assert torch.isfinite(grad).all()
        assert grad.abs().max() > 0
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)


def bf16_trap():
    """A layer whose residual lies under bf16's rounding step of the weight, and an input that shows it."""
    n = 64
    main = torch.full((n, n), 1.0)
    layer = SVDResidualLinear(n, n, 1, bias=False)
    with torch.no_grad():
        layer.weight_main.copy_(main)
        layer.U_residual.fill_(1 / math.sqrt(n))
        layer.V_residual.copy_(torch.tensor([1.0, -1.0]).repeat(n // 2) / math.sqrt(n))
        layer.S_residual.fill_(0.125)  # entries of 2^-9: less than half a step (2^-8) at 1.0
    x = torch.tensor([1.0, -1.0]).repeat(n // 2)[None]  # main maps it to 0, the residual does not
    return layer.eval(), x


@pytest.mark.parametrize("how", ["autocast", "dtype"])
@pytest.mark.parametrize("merged", [False, True])
def test_bf16_does_not_swallow_the_residual(how, merged):
    layer, x = bf16_trap()
    expected = layer(x)
    assert expected.abs().min() > 0.1
    if merged:
        layer.merge()
    if how == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
    else:
        y = layer.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("merged", [False, True])
def test_a_bias_that_is_changed_in_place_is_cast_again(merged):
    layer = SVDResidualLinear.from_linear(nn.Linear(8, 8), 1).eval()
    layer.bias.requires_grad_(False)
    if merged:
        layer.merge()
    x = torch.zeros(1, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
        layer.bias.add_(1)
        torch.testing.assert_close(layer(x).float()[0], layer.bias, rtol=0.01, atol=0.01)


def test_the_bf16_trap_catches_a_naive_merge():
    """The same case with the dense weight in bf16, to show that the test above can fail."""
    layer, x = bf16_trap()
    naive = nn.functional.linear(x.bfloat16(), layer.effective_weight().bfloat16())
    assert (naive == 0).all()


@pytest.mark.parametrize("rank", [0, 9, -2])
def test_rank_out_of_bounds(rank):
    with pytest.raises(UserError, match="residual_rank"):
        SVDResidualLinear(8, 20, rank)


def test_full_rank_residual():
    linear = nn.Linear(6, 6)
    layer = SVDResidualLinear.from_linear(linear, 6)
    assert layer.weight_main.abs().max() < 1e-6
    x = torch.randn(2, 6)
    torch.testing.assert_close(layer(x), linear(x))


def test_meta_layer_has_shapes_only():
    layer = SVDResidualLinear.from_linear(nn.Linear(6, 8, device="meta"), 2)
    assert all(p.is_meta for p in layer.parameters())
    assert layer.U_residual.shape == (8, 2)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.load_state_dict({k: 2 * t for k, t in layer.state_dict().items()}),
        lambda layer: (layer.weight_main.mul_(3), layer.merge()),
        lambda layer: layer.double(),
        lambda layer: layer.bfloat16(),
        lambda layer: layer.train(),
    ],
    ids=["load", "merge again", "double", "bfloat16", "train"],
)
def test_merged_layer_follows_its_weights(change, precision):
    layer = SVDResidualLinear.from_linear(nn.Linear(16, 16), 1).eval()
    x = torch.randn(2, 16)

    def scores():
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            return layer(x.to(layer.weight_main.dtype)).float()

    layer.merge()
    scores()
    with torch.no_grad():
        change(layer)
        got = scores()
        layer.unmerge()
        torch.testing.assert_close(got, scores(), rtol=1e-4, atol=1e-4)


def test_merged_layer_changes_precision_and_back():
    layer, x = bf16_trap()
    expected = layer(x)
    layer.merge()
    for _ in range(2):
        torch.testing.assert_close(layer(x), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(layer(x).float(), expected, rtol=0.02, atol=0)


def test_merged_under_inference_mode_serves_gradients_afterwards():
    layer = SVDResidualLinear.from_linear(nn.Linear(6, 6), 1).eval()
    layer.merge()
    with torch.inference_mode():
        layer(torch.randn(2, 6))
    x = torch.randn(2, 6, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("merged", [False, True])
def test_an_input_of_another_dtype_is_an_error_as_for_a_linear_layer(merged):
    layer = SVDResidualLinear.from_linear(nn.Linear(6, 6), 1).eval()
    if merged:
        layer.merge()
    with pytest.raises(RuntimeError, match="dtype"):
        layer(torch.randn(2, 6, dtype=torch.float64))


def test_the_kept_cast_of_main_follows_main():
    """Under autocast a frozen main is cast once; whatever changes it has to be seen by the next step."""
    layer, x = bf16_trap()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
        with torch.no_grad():
            layer.weight_main.mul_(2)
        changed = layer(x)
        fresh = copy.deepcopy(layer)
        assert torch.equal(changed, fresh(x))
        layer.weight_main.data.mul_(2)  # unseen by autograd's counter, but not by the next change of mode
        assert torch.equal(layer.eval()(x), copy.deepcopy(layer)(x))
        layer.weight_main.requires_grad_(True)
        layer(x).float().sum().backward()
    assert layer.weight_main.grad is not None


def test_copies_and_pickles_leave_the_kept_cast_behind():
    layer, x = bf16_trap()
    before = len(pickle.dumps(layer))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
    assert len(pickle.dumps(layer)) == before
