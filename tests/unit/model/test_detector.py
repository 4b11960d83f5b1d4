import copy
from collections import OrderedDict

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from toytower import SHAPE

from effort_finetune.config import settings_from_config
from effort_finetune.core.errors import UserError
from effort_finetune.evaluate.predictions import score
from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.model.layers import residuals_disabled


def save(detector, path):
    torch.save(detector.state_dict(), path)
    return str(path)


def load(path, **settings):
    config = {"resolution": 32, "head_width": 16, "pretrained_weights": str(path), **settings}
    return EffortFinetuneDetector(config)


def nudge(detector, size=0.1):
    with torch.no_grad():
        for name, p in detector.named_parameters():
            if name.endswith("residual"):
                p += size * torch.randn_like(p)


def test_the_hosts_contract(make_detector, batch):
    detector = make_detector()
    detector.device = torch.device("cpu")
    detector.epoch = 3
    batch = {**batch, "mask": None, "landmark": None}
    out = detector(batch, inference=True)
    assert {k: tuple(v.shape) for k, v in out.items()} == {"cls": (4, 2), "prob": (4,), "feat": (4, 32)}
    torch.testing.assert_close(out["prob"], out["cls"].softmax(dim=1)[:, 1])
    features = detector.features(batch)
    assert torch.equal(features, out["feat"])
    assert torch.equal(detector.classifier(features), out["cls"])
    assert set(detector.get_train_metrics(batch, out)) == {"acc", "auc", "eer", "ap"}
    assert detector.build_loss({"loss": {"label_smoothing": 0.1}}).label_smoothing == 0.1


def test_state_dict_has_deepfakebenchs_keys(make_detector):
    keys = set(make_detector().state_dict())
    assert "backbone.pre_layrnorm.weight" in keys
    attention = "backbone.encoder.layers.1.self_attn.q_proj"
    assert {k for k in keys if k.startswith(attention)} == {
        f"{attention}.{leaf}" for leaf in ("weight_main", "S_residual", "U_residual", "V_residual", "bias")
    }
    assert {"head.weight", "head.bias"} <= keys
    assert all(k.startswith(("backbone.", "head.")) for k in keys)


def test_paper_losses_add_their_reference_and_nothing_else(make_detector):
    plain = set(make_detector().state_dict())
    orth = make_detector(loss={"orth_weight": 1.0})
    orth.regulariser(orth.backbone)
    assert set(orth.state_dict()) == plain
    both = set(make_detector(loss={"orth_weight": 1.0, "ksv_weight": 1.0}).state_dict())
    assert len(both - plain) == 8
    assert all(k.endswith(".residual_energy_ref") for k in both - plain)


def test_from_an_effort_checkpoint_without_clip_and_without_an_svd(
    make_detector, batch, tmp_path, monkeypatch
):
    source = make_detector(residual_rank=2)
    nudge(source)
    path = save(source, tmp_path / "effort.pth")

    def forbidden(*_):
        raise AssertionError("an Effort checkpoint needs no SVD")

    monkeypatch.setattr("effort_finetune.svd.decompose.smallest_triplets", forbidden)
    detector = load(path)
    assert torch.equal(detector(batch)["cls"], source(batch)["cls"])
    assert detector.status.ranks == (2,)
    assert detector.load_report.layout == "deepfakebench"
    assert detector.trainable == source.trainable
    again = save(detector, tmp_path / "again.pth")
    for key, tensor in torch.load(path).items():
        assert torch.equal(torch.load(again)[key], tensor)


def test_rank_that_differs_from_the_checkpoints_is_said(make_detector, tmp_path, caplog):
    path = save(make_detector(residual_rank=3), tmp_path / "effort.pth")
    load(path)
    assert "residual_rank is 1, the checkpoint's residuals have rank 3" in caplog.text


def test_further_targets_over_an_effort_checkpoint(make_detector, batch, tmp_path):
    source = make_detector()
    path = save(source, tmp_path / "effort.pth")
    detector = load(path, targets=["self_attn.*_proj", "mlp.fc1"], residual_rank=2)
    assert len(detector.status.layers) == 10
    assert detector.status.ranks == (1, 2)
    torch.testing.assert_close(detector(batch)["cls"], source(batch)["cls"], rtol=1e-5, atol=1e-5)


def test_checkpoint_of_a_layer_range_is_not_decomposed_further(make_detector, tmp_path):
    path = save(make_detector(layer_range=[1, 1]), tmp_path / "effort.pth")
    assert load(path).status.blocks == (1,)


def test_dense_checkpoint_without_a_head_gets_both(tiny_tower, batch, tmp_path):
    state = {f"vision_model.{k}": v for k, v in tiny_tower.state_dict().items()}
    torch.save(state, tmp_path / "clip.pth")
    detector = load(tmp_path / "clip.pth")
    torch.testing.assert_close(
        detector(batch)["feat"], tiny_tower(batch["image"]).pooler_output, rtol=1e-5, atol=1e-5
    )
    assert len(detector.status.layers) == 8
    assert not any(p.is_meta for p in detector.parameters())


def test_new_head_comes_from_the_runs_seed(make_detector):
    first, second = make_detector(manualSeed=1), make_detector(manualSeed=1)
    other = make_detector(manualSeed=2)
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_typed_settings_are_taken_too(tiny_tower):
    settings = settings_from_config({"resolution": 32})
    assert EffortFinetuneDetector(settings, tower=tiny_tower).settings is settings


def test_merged_model_scores_alike_and_unmerges_to_the_bit(make_detector, batch):
    detector = make_detector(residual_rank=4).eval()
    nudge(detector)
    state = copy.deepcopy(detector.state_dict())
    expected = detector(batch)["cls"]
    detector.merge()
    assert detector.status.merged == 8
    torch.testing.assert_close(detector(batch)["cls"], expected, rtol=1e-4, atol=1e-5)
    assert detector.state_dict().keys() == state.keys()
    detector.unmerge()
    assert detector.status.merged == 0
    assert torch.equal(detector(batch)["cls"], expected)
    assert all(torch.equal(t, state[k]) for k, t in detector.state_dict().items())


def test_merged_context_leaves_what_was_merged_before(make_detector):
    detector = make_detector().eval()
    with detector.merged():
        assert detector.status.merged == 8
    assert detector.status.merged == 0
    with pytest.raises(RuntimeError, match="boom"), detector.merged():
        raise RuntimeError("boom")
    assert detector.status.merged == 0
    detector.merge()
    with detector.merged():
        pass
    assert detector.status.merged == 8


@pytest.mark.parametrize("training", [False, True])
def test_scoring_merges_and_puts_everything_back(make_detector, batch, training):
    detector = make_detector().train(training)
    nudge(detector)
    seen = []
    detector.head.register_forward_hook(lambda *_: seen.append(detector.status.merged))
    with torch.no_grad():
        expected = detector(batch)["cls"]
    loader = [{**batch, "index": torch.arange(4)}]
    scores = score(detector, loader, device="cpu")
    assert seen == [0, 8]
    assert detector.status.merged == 0
    assert detector.training == training
    difference = (expected[:, 1] - expected[:, 0]).double()
    torch.testing.assert_close(torch.from_numpy(scores.logit), difference, rtol=1e-4, atol=1e-5)


def test_image_of_another_size(make_detector):
    with pytest.raises(UserError, match=r"image size.*64x64.*32x32"):
        make_detector()({"image": torch.randn(1, 3, 64, 64)})


def test_reference_of_the_singular_value_loss_survives_a_restart(make_detector, tmp_path):
    first = make_detector(loss={"ksv_weight": 1.0})
    nudge(first)
    state = first.state_dict()
    resumed = make_detector(loss={"ksv_weight": 1.0})
    resumed.load_state_dict(state, strict=True)
    expected = first.regulariser(first.backbone)["ksv"]
    assert expected > 0
    torch.testing.assert_close(resumed.regulariser(resumed.backbone)["ksv"], expected)
    make_detector().load_state_dict(state, strict=True)  # a run without the loss takes the file too
    path = save(first, tmp_path / "with_reference.pth")
    started = load(path, loss={"ksv_weight": 1.0})
    torch.testing.assert_close(started.regulariser(started.backbone)["ksv"], expected)
    assert any("singular-value loss" in rule for rule in load(path).load_report.ignored.values())


def test_disabled_residuals_change_the_scores_only_inside_the_context(make_detector, batch):
    detector = make_detector(residual_rank=8)
    nudge(detector)
    before = detector(batch)["cls"]
    with residuals_disabled(detector):
        assert not torch.allclose(detector(batch)["cls"], before)
    assert torch.equal(detector(batch)["cls"], before)


def test_deepcopy_trains_apart(make_detector, batch):
    detector = make_detector(loss={"orth_weight": 1.0, "ksv_weight": 1.0})
    twin = copy.deepcopy(detector)
    twin.get_losses(batch, twin(batch))["overall"].backward()
    assert all(p.grad is None for p in detector.parameters())
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert not torch.equal(twin(batch)["cls"], detector(batch)["cls"])


@pytest.mark.parametrize("loss", [{}, {"orth_weight": 1.0, "ksv_weight": 1.0}])
def test_distributed_data_parallel(make_detector, batch, tmp_path, loss):
    """One process over gloo: hooks on every trained parameter, state dict under the wrapper's prefix."""
    detector = make_detector(loss=loss)
    expected = copy.deepcopy(detector)
    expected.get_losses(batch, expected(batch))["overall"].backward()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(detector)
        for _ in range(2):  # the second pass fails when a parameter of the first got no gradient
            detector.zero_grad()
            wrapped.module.get_losses(batch, wrapped(batch))["overall"].backward()
    finally:
        dist.destroy_process_group()
    for (name, p), (_, q) in zip(detector.named_parameters(), expected.named_parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)
    prefixed = OrderedDict((f"module.{k}", v) for k, v in detector.state_dict().items())
    assert list(wrapped.state_dict()) == list(prefixed)
    torch.save(wrapped.state_dict(), tmp_path / "ddp.pth")
    assert torch.equal(load(tmp_path / "ddp.pth")(batch)["cls"], detector(batch)["cls"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_step(make_detector, batch, dtype):
    detector = make_detector(loss={"orth_weight": 1.0, "ksv_weight": 1.0})
    with torch.autocast("cpu", dtype=dtype):
        terms = detector.get_losses(batch, detector(batch))
    assert terms["overall"].dtype == torch.float32
    terms["overall"].backward()
    trained = [p for p in detector.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


def test_no_graph_is_kept_between_steps(make_detector, batch):
    """Values kept over many steps, as a host's recorders do, hold no graph but that of `overall`."""
    detector = make_detector(loss={"orth_weight": 1.0, "ksv_weight": 1.0})
    out = detector(batch)
    kept = {k: v for k, v in detector.get_losses(batch, out).items() if k != "overall"}
    assert all(v.grad_fn is None for v in kept.values())
    metrics = detector.get_train_metrics(batch, out)
    assert not any(isinstance(v, torch.Tensor) for v in metrics.values())


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    EffortFinetuneDetector({"resolution": 32}, tower=random_tower(SHAPE))
    assert torch.equal(torch.rand(3), expected)
