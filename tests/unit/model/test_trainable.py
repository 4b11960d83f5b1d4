import copy
import re

import pytest
import torch

from effort_finetune.config import Settings
from effort_finetune.core.errors import UserError
from effort_finetune.model.backbone import build_tower
from effort_finetune.model.inject import inject
from effort_finetune.model.trainable import configure_trainable, matching


def trained(detector):
    return {name for name, p in detector.named_parameters() if p.requires_grad}


def changed_after_a_step(detector, batch):
    """Names of the parameters that an optimiser over all of them really moves."""
    before = copy.deepcopy(detector.state_dict())
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-2)
    detector.train()
    detector.get_losses(batch, detector(batch))["overall"].backward()
    optimizer.step()
    return {name for name, t in detector.state_dict().items() if not torch.equal(t, before[name])}


RESIDUAL = re.compile(r"\.[SUV]_residual$")
NORM = re.compile(r"(layer_norm[12]|pre_layrnorm|post_layernorm)\.")


def group(names, pattern):
    return {name for name in names if pattern.search(name)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda n: RESIDUAL.search(n) or n.startswith("head.")),
        ({"tune_mode": "residual"}, lambda n: RESIDUAL.search(n) or n.startswith("head.")),
        ({"tune_mode": "head"}, lambda n: n.startswith("head.")),
        ({"train_svd_residuals": False}, lambda n: n.startswith("head.")),
        ({"train_classification_head": False}, lambda n: RESIDUAL.search(n)),
        ({"tune_mode": "layernorm"}, lambda n: NORM.search(n) or n.startswith("head.")),
        ({"tune_mode": "full"}, lambda n: not RESIDUAL.search(n)),
        ({"tune_mode": "bitfit"}, lambda n: n.endswith(".bias") or n.startswith("head.")),
        ({"tune_mode": "osf"}, lambda n: RESIDUAL.search(n) or n.startswith("head.")),
        ({"freeze_backbone": False}, lambda n: True),
        ({"freeze_backbone": False, "train_svd_residuals": False}, lambda n: not RESIDUAL.search(n)),
        (
            {"layer_range": [1, 1]},
            lambda n: (RESIDUAL.search(n) and ".layers.1." in n) or n.startswith("head."),
        ),
        (
            {"tune_mode": "full", "layer_range": [1, 1]},
            lambda n: not RESIDUAL.search(n) and ".layers.0." not in n,
        ),
        (
            {"unfreeze": ["layers.1.layer_norm1"]},
            lambda n: RESIDUAL.search(n) or n.startswith("head.") or "layers.1.layer_norm1" in n,
        ),
        (
            {"tune_mode": "head", "unfreeze": ["encoder.layers.0.*.weight_main"]},
            lambda n: n.startswith("head.") or (n.endswith("weight_main") and ".layers.0." in n),
        ),
    ],
)
def test_exactly_these_parameters_are_trained(make_detector, batch, settings, expected):
    detector = make_detector(**settings)
    names = {name for name, _ in detector.named_parameters()}
    chosen = {name for name in names if expected(name)}
    assert trained(detector) == chosen
    moved = changed_after_a_step(detector, batch)
    assert moved <= chosen
    # The key projection's bias adds the same to every score of a row: softmax has no gradient for it.
    assert {n for n in chosen - moved if not n.endswith("k_proj.bias")} == set()


def test_counts_by_group(make_detector):
    status = make_detector().trainable
    assert status.by_group == {"residual": 8 * 65, "head": 66}
    assert status.trainable == 8 * 65 + 66
    assert len(status.names) == 8 * 3 + 2
    assert status.line().startswith("trainable: 586 of ")
    full = make_detector(tune_mode="full").trainable
    assert set(full.by_group) == {"head", "layernorm", "main", "bias", "other"}
    assert full.by_group["main"] == 8 * 32 * 32
    assert full.trainable + 8 * 65 == full.total


def test_full_mode_moves_the_sum_as_a_dense_weight_would(make_detector, tiny_tower, batch):
    """weight_main under a fixed residual gets the dense weight's gradient, so Adam's step is the same."""
    detector = make_detector(tune_mode="full", layer_range=None)
    dense = make_detector(tune_mode="full")
    dense.backbone = copy.deepcopy(tiny_tower)
    dense.head = copy.deepcopy(detector.head)
    changed_after_a_step(detector, batch)
    changed_after_a_step(dense, batch)
    for name, layer in detector.backbone.named_modules():
        if name.endswith("v_proj"):
            expected = dense.backbone.get_submodule(name).weight
            torch.testing.assert_close(layer.effective_weight(), expected.detach(), rtol=0, atol=2e-3)


def test_vit_l14_trains_196704_and_2050_parameters():
    tower = build_tower(
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
        }
    )
    inject(tower, Settings().targets, Settings().residual_rank)
    detector = torch.nn.Module()
    detector.backbone, detector.head = tower, torch.nn.Linear(1024, 2, device="meta")
    status = configure_trainable(detector, Settings())
    assert status.by_group == {"residual": 196_704, "head": 2_050}
    assert status.trainable == 198_754


NAMES = (
    "backbone.encoder.layers.0.self_attn.q_proj.weight_main",
    "backbone.encoder.layers.1.self_attn.q_proj.weight_main",
    "backbone.encoder.layers.1.mlp.fc1.weight",
    "head.weight",
)


@pytest.mark.parametrize(
    ("pattern", "hits"),
    [
        ("layers.1", {1, 2}),
        ("head", {3}),
        ("backbone.encoder.layers.*.weight", {2}),
        ("self_attn*weight_main", {0, 1}),
        ("layers.[01].mlp", {2}),
        ("backbone.layer", {0, 1, 2}),
        ("backbone.layer.1.", {1, 2}),
        ("backbone.layer*attention", {0, 1}),
        ("attention", {0, 1}),
    ],
)
def test_unfreeze_patterns(pattern, hits):
    assert matching([pattern], NAMES) == {NAMES[i] for i in hits}


def test_unknown_pattern_names_its_neighbours():
    with pytest.raises(UserError, match=r"unfreeze pattern 'self_atn'.*'self_attn'"):
        matching(["layers.1", "self_atn"], NAMES)
    with pytest.raises(UserError, match="unfreeze pattern 'zzz'.*next: try"):
        matching(["zzz"], NAMES)


def test_nothing_to_train_is_an_error(make_detector):
    with pytest.raises(UserError, match="trainable parameters; got none"):
        make_detector(train_svd_residuals=False, train_classification_head=False)


def test_layer_range_outside_the_tower(make_detector):
    with pytest.raises(UserError, match="layer_range"):
        make_detector(layer_range=[1, 5])
