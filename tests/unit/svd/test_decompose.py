import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.svd import decompose as svd


def spectrum(n, values):
    """A square float64 matrix with the given singular values."""
    u = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q
    return u * torch.as_tensor(values, dtype=torch.float64) @ v.T


@pytest.mark.parametrize("n", [64, 200])
@pytest.mark.parametrize("k", [1, 4])
def test_small_triplets_are_those_of_a_full_svd(n, k):
    weight = torch.randn(n, n, dtype=torch.float64)
    found = svd.smallest_triplets(weight, k)
    u, s, v = torch.linalg.svd(weight)
    assert found.method == "inverse_iteration"
    torch.testing.assert_close(found.S, s[-k:], rtol=1e-10, atol=0)
    # Vectors up to a common sign: the projected pair u v^T has none.
    torch.testing.assert_close(
        torch.einsum("nk,km->knm", found.U, found.V),
        torch.einsum("nk,km->knm", u[:, -k:], v[-k:]),
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.parametrize("shape", [(96, 96), (96, 40), (40, 96), (8, 8)])
@pytest.mark.parametrize("k", [1, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_main_plus_residual_is_the_weight(shape, k, dtype):
    weight = torch.randn(shape, dtype=dtype)
    parts = svd.split(weight, k)
    assert parts.main.dtype == parts.U.dtype == parts.S.dtype == parts.V.dtype == dtype
    assert (parts.U.shape, parts.S.shape, parts.V.shape) == ((shape[0], k), (k,), (k, shape[1]))
    rebuilt = parts.main.double() + (parts.U.double() * parts.S.double()) @ parts.V.double()
    step = torch.finfo(dtype).eps * weight.abs().max()
    # In float64 the sum of products on either side is itself rounded, in an order of its own.
    assert (rebuilt - weight.double()).abs().max() <= step * (1 if dtype == torch.float32 else 4)


def test_subtraction_is_more_exact_than_a_rebuild_from_the_large_triplets():
    weight = torch.randn(128, 128)
    parts = svd.split(weight, 1)
    u, s, v = torch.linalg.svd(weight)
    rebuilt = (u[:, :-1] * s[:-1]) @ v[:-1]

    def error(main):
        return (main.double() + (parts.U * parts.S).double() @ parts.V.double() - weight).abs().max()

    assert error(parts.main) < 0.1 * error(rebuilt)


def test_singular_values_descend():
    parts = svd.split(torch.randn(128, 128), 8)
    assert (parts.S.diff() <= 0).all()
    assert (parts.S >= 0).all()


@pytest.mark.parametrize("zeros", [1, 3, 20])
def test_rank_deficient_weight(zeros):
    values = torch.linspace(2, 1, 100)
    values[-zeros:] = 0
    weight = spectrum(100, values)
    found = svd.smallest_triplets(weight, 3)
    assert svd.residual_error(weight, found) <= 1e-11
    expected = values.sort(descending=True).values[-3:].double()
    torch.testing.assert_close(found.S, expected, rtol=1e-9, atol=1e-11)


def test_cluster_at_the_cut():
    """Equal singular values on both sides of k leave the basis free, not the values."""
    values = torch.ones(80)
    values[0] = 5
    weight = spectrum(80, values)
    found = svd.smallest_triplets(weight, 2)
    assert svd.residual_error(weight, found) <= 1e-11
    torch.testing.assert_close(found.S, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("condition", [1e6, 1e12])
def test_badly_conditioned_weight(condition):
    weight = spectrum(100, torch.logspace(0, -torch.tensor(condition).log10().item(), 100))
    found = svd.smallest_triplets(weight, 2)
    assert svd.residual_error(weight, found) <= 1e-11


def test_zero_weight():
    parts = svd.split(torch.zeros(70, 70), 2)
    assert (parts.S == 0).all()
    assert (parts.main == 0).all()


def test_iteration_that_does_not_converge_falls_back(monkeypatch):
    monkeypatch.setattr(svd, "_MAX_ITERATIONS", 0)
    weight = torch.randn(96, 96, dtype=torch.float64)
    found = svd.smallest_triplets(weight, 2)
    assert found.method == "full"
    torch.testing.assert_close(found.S, torch.linalg.svdvals(weight)[-2:])


def test_a_large_share_of_triplets_takes_the_full_svd():
    assert svd.split(torch.randn(96, 96), 48).method == "full"


def test_decomposition_is_a_function_of_the_weight():
    weight = torch.randn(96, 96)
    torch.manual_seed(0)
    first = svd.split(weight, 2)
    torch.manual_seed(1)
    second = svd.split(weight, 2)
    assert torch.equal(first.U, second.U)
    assert torch.equal(first.main, second.main)


def test_weight_is_left_as_it_was():
    weight = torch.randn(96, 96)
    before = weight.clone()
    svd.split(weight, 2)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("k", [0, -1, 9])
def test_rank_out_of_bounds(k):
    with pytest.raises(UserError, match="residual_rank.*1 to 8"):
        svd.split(torch.randn(8, 20), k)


@pytest.mark.parametrize(
    "weight",
    [torch.randn(4), torch.ones(4, 4, dtype=torch.int64), torch.full((4, 4), float("nan"))],
    ids=["vector", "integer", "nan"],
)
def test_what_is_no_finite_matrix(weight):
    with pytest.raises(UserError, match="weight to decompose"):
        svd.split(weight, 1)
