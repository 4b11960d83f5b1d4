"""LoRA, DoRA and gradient projection against PEFT's own and against what they are merged into."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from effort_finetune.core.errors import UserError
from effort_finetune.model import low_rank
from effort_finetune.model.layers import SVDResidualLinear, residual_layers
from effort_finetune.weights.peft_names import merged

peft = pytest.importorskip("peft")


def adapted(make_detector, mode: str, **settings):
    """A detector whose adapters have moved away from their start."""
    detector = make_detector(tune_mode=mode, lora={"rank": 3, "alpha": 6}, **settings)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return detector


@pytest.mark.parametrize("mode", low_rank.MODES)
def test_an_adapter_begins_as_the_model_it_is_put_on(make_detector, batch, mode):
    plain, detector = make_detector().eval(), make_detector(tune_mode=mode).eval()
    torch.testing.assert_close(detector(batch)["cls"], plain(batch)["cls"], rtol=0, atol=1e-6)
    assert detector.trainable.by_group.keys() == {"head", "lora"}
    lengths = 8 * 32 if mode == "dora" else 0
    assert detector.trainable.by_group["lora"] == 8 * 8 * (32 + 32) + lengths


@pytest.mark.parametrize("mode", low_rank.MODES)
def test_merged_weights_load_strictly_where_any_model_does_and_score_the_same(make_detector, batch, mode):
    detector, plain = adapted(make_detector, mode).double().eval(), make_detector().double().eval()
    batch["image"] = batch["image"].double()
    expected = detector(batch)["cls"]
    state = merged(detector.state_dict())
    assert list(state) == list(plain.state_dict())
    before = plain(batch)["cls"]
    plain.load_state_dict(state, strict=True)
    torch.testing.assert_close(plain(batch)["cls"], expected, rtol=0, atol=1e-12)
    assert not torch.allclose(before, expected, atol=1e-3)
    detector.load_state_dict(state)  # whole weights take the adapters' place
    torch.testing.assert_close(detector(batch)["cls"], expected, rtol=0, atol=1e-12)
    assert list(detector.state_dict()) == list(state)


@pytest.mark.parametrize("mode", low_rank.MODES)
def test_a_step_is_that_of_peft_over_the_dense_weight(mode):
    """The layer below being decomposed changes nothing of what PEFT computes."""
    torch.manual_seed(0)
    dense = torch.nn.Linear(24, 16).double()
    holder = torch.nn.ModuleDict({"layer": SVDResidualLinear.from_linear(dense, 2)})
    plain = torch.nn.ModuleDict({"layer": dense})
    config = {"r": 2, "lora_alpha": 4, "target_modules": ["layer"], "use_dora": mode == "dora"}
    ours, theirs = peft.LoraConfig(**config), peft.LoraConfig(**config)
    ours._register_custom_module({SVDResidualLinear: peft.tuners.lora.layer.Linear})
    for wanted, module in ((ours, holder), (theirs, plain)):
        peft.inject_adapter_in_model(wanted, module)
    theirs_state = {k: v for k, v in plain.state_dict().items() if "lora_" in k}
    holder.load_state_dict(theirs_state, strict=False)
    x = torch.randn(5, 24, dtype=torch.float64)
    for module in (holder, plain):
        F.cross_entropy(module["layer"](x), torch.arange(5)).backward()
    for name, parameter in plain.named_parameters():
        if "lora_" in name:
            twin = holder.get_parameter(name)
            torch.testing.assert_close(twin.grad, parameter.grad, rtol=0, atol=1e-12)


def test_adapters_keep_to_the_blocks_asked_for(make_detector):
    detector = make_detector(tune_mode="lora", layer_range=[1, 1])
    assert all(".layers.1." in name for name in detector.trainable.names if "lora_" in name)


def test_a_rank_that_does_not_fit_is_refused(make_detector):
    with pytest.raises(UserError, match=r"lora.rank; got 64, of 8 layers; expected 1 to 32"):
        make_detector(tune_mode="lora", lora={"rank": 64})


def test_without_peft_the_way_to_it_is_named(make_detector, monkeypatch):
    monkeypatch.setattr(low_rank, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'effort-finetune\[peft\]'"):
        make_detector(tune_mode="dora")


@pytest.mark.parametrize("rank", [1, 4])
def test_projected_gradients_are_those_of_pefts_osf(make_detector, batch, rank):
    from peft.tuners.osf.utils import project_gradient_to_orthogonal_space

    free = make_detector(tune_mode="residual", residual_rank=rank)
    projected = make_detector(tune_mode="osf", residual_rank=rank)
    projected.load_state_dict(free.state_dict())
    for detector in (free, projected):
        detector.get_losses(batch, detector(batch))["overall"].backward()
    for name, layer in residual_layers(free.backbone).items():
        twin = residual_layers(projected.backbone)[name]
        u, _, v = torch.linalg.svd(layer.weight_main.detach())
        keep = len(u) - rank
        theirs = {"U_high": u[:, :keep], "V_high": v[:keep]}
        theirs |= {f"{side}_low": getattr(layer, f"{side}_residual") for side in "USV"}
        project_gradient_to_orthogonal_space(theirs)
        largest = max(float(twin.U_residual.grad.abs().max()), 1e-6)
        for side in "USV":
            ours = getattr(twin, f"{side}_residual").grad
            torch.testing.assert_close(
                ours, getattr(layer, f"{side}_residual").grad, rtol=1e-3, atol=1e-4 * largest
            )


def test_a_frozen_layer_keeps_no_input_for_the_backward_pass():
    layer = SVDResidualLinear.from_linear(torch.nn.Linear(8, 8), 1).requires_grad_(False)
    x = torch.randn(50, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        y = layer(x)
    assert max(kept) == 64
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, layer.weight.sum(dim=0).expand(50, 8))
