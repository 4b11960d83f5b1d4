import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.model.inject import inject, inject_from_shapes, status_of
from effort_finetune.model.layers import SVDResidualLinear, residual_layers
from effort_finetune.svd import decompose as svd

ATTENTION = ("self_attn.*_proj",)
QV = ("self_attn.q_proj", "self_attn.v_proj")


def test_default_targets_are_the_four_attention_projections_of_each_block(tiny_tower):
    status = inject(tiny_tower, ATTENTION, 1)
    names = {f"encoder.layers.{block}.self_attn.{p}_proj" for block in (0, 1) for p in ("q", "k", "v", "out")}
    assert set(status.layers) == names
    assert (status.ranks, status.blocks, status.merged) == ((1,), (0, 1), 0)
    assert status.residual_parameters == 8 * (32 + 1 + 32)
    assert status == status_of(tiny_tower)
    assert "8 layers in 2 blocks decomposed, residual rank 1" in status.line()


@pytest.mark.parametrize(
    ("targets", "layer_range", "expected"),
    [
        (("mlp.fc1",), None, {"0.mlp.fc1", "1.mlp.fc1"}),
        (("mlp.fc?",), (1, 1), {"1.mlp.fc1", "1.mlp.fc2"}),
        (
            ("self_attn.[qv]_proj", "mlp.fc2"),
            (0, 0),
            {"0.self_attn.q_proj", "0.self_attn.v_proj", "0.mlp.fc2"},
        ),
    ],
)
def test_targets_and_layer_range(tiny_tower, targets, layer_range, expected):
    status = inject(tiny_tower, targets, 2, layer_range)
    assert {name.removeprefix("encoder.layers.") for name in status.layers} == expected


def test_outputs_stay_those_of_the_dense_tower(tiny_tower):
    x = torch.randn(2, 3, 32, 32)
    before = tiny_tower(x).pooler_output
    inject(tiny_tower, (*ATTENTION, "mlp.*"), 3)
    torch.testing.assert_close(tiny_tower(x).pooler_output, before, rtol=1e-5, atol=1e-5)


def test_a_second_injection_adds_and_keeps(tiny_tower):
    inject(tiny_tower, ATTENTION, 1)
    kept = dict(residual_layers(tiny_tower))
    status = inject(tiny_tower, (*ATTENTION, "mlp.fc1"), 2)
    assert len(status.layers) == 10
    assert status.ranks == (1, 2)
    assert all(residual_layers(tiny_tower)[name] is layer for name, layer in kept.items())


@pytest.mark.parametrize(
    ("targets", "rank", "layer_range", "message"),
    [
        (("self_atn.*_proj",), 1, None, r"self_atn.*no linear layer.*self_attn\.q_proj"),
        (("self_attn.q_proj", "layer_norm1"), 1, None, "layer_norm1.*no linear layer"),
        (("self_attn.q_proj", "mlp.fc1"), 33, None, "residual_rank.*33.*1 to 32"),
        (ATTENTION, 0, None, "residual_rank"),
        (ATTENTION, 1, (1, 2), r"layer_range.*\[1, 2\].*2 blocks"),
        (ATTENTION, 1, (-1, 0), "layer_range"),
    ],
)
def test_an_error_leaves_the_tower_as_it_was(tiny_tower, targets, rank, layer_range, message):
    before = dict(tiny_tower.named_modules())
    with pytest.raises(UserError, match=message):
        inject(tiny_tower, targets, rank, layer_range)
    assert dict(tiny_tower.named_modules()) == before
    assert not residual_layers(tiny_tower)


def test_a_failure_in_the_last_decomposition_leaves_the_tower_as_it_was(tiny_tower):
    calls = []

    def fails_at_the_eighth(weight, rank):
        calls.append(rank)
        if len(calls) == 8:
            raise UserError("weight to decompose")
        return svd.split(weight, rank)

    with pytest.raises(UserError):
        inject(tiny_tower, ATTENTION, 1, decompose=fails_at_the_eighth)
    assert len(calls) == 8
    assert not residual_layers(tiny_tower)


def test_what_is_no_tower():
    with pytest.raises(UserError, match="without encoder.layers"):
        inject(torch.nn.Sequential(torch.nn.Linear(3, 3)), ATTENTION, 1)


def test_shapes_of_a_checkpoint_make_empty_layers(tiny_tower):
    status = inject_from_shapes(tiny_tower, {"encoder.layers.1.mlp.fc1": 3})
    layer = residual_layers(tiny_tower)["encoder.layers.1.mlp.fc1"]
    assert isinstance(layer, SVDResidualLinear)
    assert (layer.in_features, layer.out_features, layer.rank) == (32, 64, 3)
    assert status.ranks == (3,)
    with pytest.raises(UserError, match=r"encoder\.layers\.7"):
        inject_from_shapes(tiny_tower, {"encoder.layers.7.mlp.fc1": 3})
