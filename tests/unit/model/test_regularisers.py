"""The low-cost forms against the dense formulas, in float64."""

import pytest
import torch
from torch import nn

from effort_finetune.config import Loss
from effort_finetune.core.errors import UserError
from effort_finetune.model.layers import RESIDUAL_NAMES, SVDResidualLinear
from effort_finetune.model.regularisers import Regulariser

SHAPES = [(48, 48), (64, 24), (24, 64)]
RANKS = [1, 4, 16]


def fresh(n, m, k, dtype=torch.float64):
    """A decomposed layer, with the full SVD of its original weight beside it."""
    linear = nn.Linear(m, n, dtype=dtype)
    layer = SVDResidualLinear.from_linear(linear, k)
    u, s, vh = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    return layer, (u[:, :-k], s, vh[:-k]), linear.weight.detach().square().sum()


def move(layer, size=0.05):
    with torch.no_grad():
        for name in ("U_residual", "S_residual", "V_residual"):
            p = getattr(layer, name)
            p += size * torch.randn_like(p)


def dense_paper(layer, u_r, v_r):
    u = torch.cat([u_r, layer.U_residual], dim=1)
    v = torch.cat([v_r, layer.V_residual], dim=0)
    eye = torch.eye(u.shape[1], dtype=u.dtype)
    return (u.T @ u - eye).square().sum() + (v @ v.T - eye).square().sum()


def dense_released(layer, u_r, v_r):
    """Half the Frobenius norms of the outer products less identity, side by side."""
    total = 0
    for basis in (torch.cat([u_r, layer.U_residual], dim=1), torch.cat([v_r, layer.V_residual]).T):
        outer = basis @ basis.T
        total = total + 0.5 * torch.linalg.norm(outer - torch.eye(len(outer), dtype=outer.dtype))
    return total


def dense_ksv(layer, norm_squared):
    weight = layer.weight_main + layer.U_residual @ torch.diag(layer.S_residual) @ layer.V_residual
    return (weight.square().sum() - norm_squared).abs()


def gradients(value, layer):
    parameters = (layer.U_residual, layer.S_residual, layer.V_residual)
    return torch.autograd.grad(value, parameters, allow_unused=True)


def assert_same(got, expected, layer):
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)
    for a, b in zip(gradients(got, layer), gradients(expected, layer), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("k", RANKS)
@pytest.mark.parametrize(("form", "dense"), [("paper", dense_paper), ("released", dense_released)])
@pytest.mark.parametrize("size", [0.01, 1.0])
def test_orthogonality_is_the_dense_formula(n, m, k, form, dense, size):
    layer, (u_r, _, v_r), _ = fresh(n, m, k)
    regulariser = Regulariser(layer, Loss(orth_weight=1.0, orth_form=form))
    assert regulariser(layer)["orth"].detach() >= 0  # built now, from the untouched layer
    move(layer, size)
    assert_same(regulariser(layer)["orth"], dense(layer, u_r, v_r), layer)


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("k", RANKS)
@pytest.mark.parametrize(("form", "dense"), [("paper", dense_paper), ("released", dense_released)])
def test_bases_are_found_from_a_trained_layer_too(n, m, k, form, dense):
    """As after loading a checkpoint: the initial residual is gone, main tells what it was."""
    layer, (u_r, _, v_r), _ = fresh(n, m, k)
    move(layer)
    regulariser = Regulariser(layer, Loss(orth_weight=1.0, orth_form=form))
    assert_same(regulariser(layer)["orth"], dense(layer, u_r, v_r), layer)


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("k", RANKS)
def test_singular_value_loss_is_the_dense_formula(n, m, k):
    layer, _, norm_squared = fresh(n, m, k)
    regulariser = Regulariser(layer, Loss(ksv_weight=1.0))
    assert regulariser(layer)["ksv"] == 0
    move(layer)
    assert_same(regulariser(layer)["ksv"], dense_ksv(layer, norm_squared), layer)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_both_are_zero_at_the_start_in_float32_and_have_finite_gradients(form):
    layer, *_ = fresh(64, 64, 1, torch.float32)
    terms = Regulariser(layer, Loss(orth_weight=1.0, ksv_weight=1.0, orth_form=form))(layer)
    assert terms["orth"] < 1e-6
    assert terms["ksv"] == 0
    for gradient in gradients(terms["orth"] + terms["ksv"], layer):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e-5, 1e-3])
def test_float32_keeps_its_digits_near_the_start(size):
    """||U^T U||^2 + k - 2 ||U0^T U||^2 would round to 0 or to noise here."""
    layer, *_ = fresh(64, 64, 1, torch.float32)
    regulariser = Regulariser(layer, Loss(orth_weight=1.0))
    regulariser(layer)
    u0, v0 = layer.U_residual.detach().double(), layer.V_residual.detach().double()
    move(layer, size)
    moved = layer.double()
    exact = sum(
        (x @ x.T - y @ y.T).square().sum() for x, y in ((moved.U_residual, u0), (moved.V_residual.T, v0.T))
    )
    got = regulariser(layer.float())["orth"]
    torch.testing.assert_close(got.double(), exact, rtol=1e-3, atol=1e-12)


def test_means_over_layers_of_different_shapes_and_ranks():
    layers = [fresh(*shape) for shape in ((24, 24, 2), (24, 24, 2), (40, 24, 2), (24, 24, 3))]
    model = nn.ModuleList([layer for layer, *_ in layers])
    regulariser = Regulariser(model, Loss(orth_weight=1.0, ksv_weight=1.0))
    for layer in model:
        move(layer)
    terms = regulariser(model)
    orth = sum(dense_paper(layer, u_r, v_r) for layer, (u_r, _, v_r), _ in layers) / 4
    ksv = sum(dense_ksv(layer, norm) for layer, _, norm in layers) / 4
    torch.testing.assert_close(terms["orth"], orth, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(terms["ksv"], ksv, rtol=1e-8, atol=1e-10)


def test_terms_whose_weight_is_zero_are_left_out():
    layer, *_ = fresh(8, 8, 1)
    assert set(Regulariser(layer, Loss(orth_weight=1.0))(layer)) == {"orth"}
    assert "residual_energy_ref" not in layer.state_dict()
    assert set(Regulariser(layer, Loss(ksv_weight=1.0))(layer)) == {"ksv"}


def test_reference_survives_a_resumed_run():
    layer, _, norm_squared = fresh(24, 24, 2)
    Regulariser(layer, Loss(ksv_weight=1.0))
    move(layer)
    resumed, *_ = fresh(24, 24, 2)
    regulariser = Regulariser(resumed, Loss(orth_weight=1.0, ksv_weight=1.0))
    regulariser(resumed)
    resumed.load_state_dict(layer.state_dict())
    terms = regulariser(resumed)
    torch.testing.assert_close(terms["ksv"], dense_ksv(resumed, norm_squared), rtol=1e-8, atol=1e-10)
    # The bases are those of the loaded main weight, not of the one built before.
    u, _, vh = torch.linalg.svd(layer.weight_main.detach())
    torch.testing.assert_close(terms["orth"], dense_paper(resumed, u[:, :-2], vh[:-2]), rtol=1e-8, atol=1e-10)


def test_a_run_that_goes_on_measures_against_its_own_start():
    """Of a singular weight no file tells later which of its zeros the residual began with."""
    linear = nn.Linear(24, 24)
    with torch.no_grad():
        linear.weight[:, :3] = 0
    layer = SVDResidualLinear.from_linear(linear, 1)
    terms = Regulariser(layer, Loss(orth_weight=1.0, ksv_weight=1.0))
    assert terms(layer)["orth"] < 1e-6
    reference = layer.residual_energy_ref
    move(layer, 1e-3)
    expected, bases = terms(layer), terms.start_bases()
    trained = {name: getattr(layer, name).detach().clone() for name in RESIDUAL_NAMES}
    layer.load_state_dict(trained, strict=False)  # what a run's state holds: all but main
    assert torch.equal(layer.residual_energy_ref, reference)
    again = Regulariser(layer, Loss(orth_weight=1.0, ksv_weight=1.0))
    again.take_start_bases(bases)
    assert_equal_trees(again.start_bases(), bases)  # also where it is stopped before its first step
    assert_equal_trees(again(layer), expected)
    assert_equal_trees(again.start_bases(), bases)


def assert_equal_trees(left, right):
    assert left.keys() == right.keys()
    assert left
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_files_with_and_without_the_reference_load_strictly_both_ways():
    plain, *_ = fresh(12, 12, 1)
    with_reference, *_ = fresh(12, 12, 1)
    Regulariser(with_reference, Loss(ksv_weight=1.0))
    upstream = plain.state_dict()
    move(with_reference)
    plain.load_state_dict(with_reference.state_dict(), strict=True)
    assert plain.residual_energy_ref is None
    with_reference.load_state_dict(upstream, strict=True)
    torch.testing.assert_close(with_reference.residual_energy_ref, with_reference.residual_energy())


def test_autocast_does_not_round_the_terms():
    layer, *_ = fresh(32, 32, 1, torch.float32)
    regulariser = Regulariser(layer, Loss(orth_weight=1.0, ksv_weight=1.0))
    move(layer, 1e-3)
    expected = regulariser(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = regulariser(layer)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert torch.equal(term, expected[name])


def test_refused_without_a_frozen_main_part():
    layer, *_ = fresh(8, 8, 1)
    layer.weight_main.requires_grad_()
    with pytest.raises(UserError, match="frozen main weight"):
        Regulariser(layer, Loss(orth_weight=1.0))
    with pytest.raises(UserError, match="no decomposed layer"):
        Regulariser(nn.Linear(3, 3), Loss(ksv_weight=1.0))
