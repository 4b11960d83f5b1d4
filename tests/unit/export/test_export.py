"""Each export, read back by the library it is meant for, scores as the detector does."""

from __future__ import annotations

import json
import sys

import make_layouts as golden
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPVisionModel

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.export import merged
from effort_finetune.export.onnx import export_onnx
from effort_finetune.export.peft import export_peft
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.svd import decompose as svd
from effort_finetune.weights import deepfakebench_layout as layout
from effort_finetune.weights.reader import read_checkpoint


@pytest.fixture
def images():
    return torch.randn(3, 3, golden.RESOLUTION, golden.RESOLUTION, generator=torch.Generator().manual_seed(4))


def detector_of(path, **settings):
    config = {
        "pretrained_weights": str(path),
        "resolution": golden.RESOLUTION,
        "head_width": golden.HEAD_WIDTH,
        **settings,
    }
    return EffortFinetuneDetector(config).eval()


def logits_of(detector, images):
    with torch.no_grad():
        return detector({"image": images})["cls"]


@pytest.fixture
def trained(tmp_path):
    """A trained checkpoint that started from plain CLIP, and that CLIP as a folder."""
    clip = tmp_path / "clip"
    golden.clip_model().save_pretrained(clip)
    state = {}
    generator = torch.Generator().manual_seed(8)
    for key, value in golden.detector().items():
        module, _, leaf = key.rpartition(".")
        if leaf == "weight_main":
            dense = golden.dense_tower()[f"{module.removeprefix('backbone.')}.weight"]
            parts = svd.split(dense, golden.RANK)
            state[key] = parts.main
            for name in "SUV":
                start = getattr(parts, name)
                state[f"{module}.{name}_residual"] = start + 0.1 * torch.randn(
                    start.shape, generator=generator
                )
        elif not leaf.endswith("_residual"):
            state[key] = value
    path = tmp_path / "trained.pth"
    torch.save(state, path)
    return path, clip


def checkpoint_of(path):
    return read_checkpoint(path, head_width=golden.HEAD_WIDTH)


def test_deepfakebench_is_what_upstream_writes(tmp_path, trained, images):
    path, _ = trained
    checkpoint = checkpoint_of(path)
    reference = "backbone.encoder.layers.0.self_attn.q_proj.residual_energy_ref"
    checkpoint.tensors[reference] = torch.ones(())

    written = layout.export_deepfakebench(checkpoint, tmp_path / "out.pth")

    loaded = torch.load(written.paths[0], weights_only=True)
    original = torch.load(path, weights_only=True)
    assert set(loaded) == set(original)
    for key, value in original.items():
        torch.testing.assert_close(loaded[key], value, rtol=0, atol=0)
        assert loaded[key].dtype == torch.float32
    torch.testing.assert_close(
        logits_of(detector_of(written.paths[0]), images), logits_of(detector_of(path), images), rtol=0, atol=0
    )
    assert "width 1024" in written.notes[0]


def test_deepfakebench_brings_other_targets_into_upstreams_structure(tmp_path, trained, images):
    path, _ = trained
    module = "backbone.encoder.layers.1.mlp.fc1"
    state = dict(torch.load(path, weights_only=True))
    parts = svd.split(state.pop(f"{module}.weight"), 1)
    state |= {f"{module}.weight_main": parts.main}
    state |= {f"{module}.{name}_residual": 1.5 * getattr(parts, name) for name in "SUV"}
    dense = "backbone.encoder.layers.0.self_attn.k_proj"
    state[f"{dense}.weight"] = golden.dense_tower()["encoder.layers.0.self_attn.k_proj.weight"]
    for leaf in ("weight_main", "S_residual", "U_residual", "V_residual"):
        del state[f"{dense}.{leaf}"]
    torch.save(state, tmp_path / "odd.pth")

    written = layout.export_deepfakebench(checkpoint_of(tmp_path / "odd.pth"), tmp_path / "out.pth")

    assert set(torch.load(written.paths[0], weights_only=True)) == set(golden.detector())
    odd = detector_of(tmp_path / "odd.pth", targets=["self_attn.*_proj", "mlp.fc1"])
    torch.testing.assert_close(
        logits_of(detector_of(written.paths[0]), images), logits_of(odd, images), rtol=1e-5, atol=1e-5
    )


def test_dense_attention_is_split_at_upstreams_rank_whatever_the_mlps_is(tmp_path, images):
    golden.DENSE["clip_folder"](tmp_path / "clip")
    mlp = detector_of(tmp_path / "clip", targets=["mlp.fc?"], residual_rank=4)
    torch.save(mlp.state_dict(), tmp_path / "mlp.pth")

    written = layout.export_deepfakebench(checkpoint_of(tmp_path / "mlp.pth"), tmp_path / "out.pth")

    assert set(checkpoint_of(written.paths[0]).residual_ranks.values()) == {1}
    torch.testing.assert_close(
        logits_of(detector_of(written.paths[0]), images), logits_of(mlp, images), rtol=1e-4, atol=1e-5
    )


def test_effort_fork_holds_the_triplets_of_main(tmp_path, trained, images):
    path, _ = trained

    written = layout.export_deepfakebench(checkpoint_of(path), tmp_path / "fork.pth", effort_fork=True)

    assert set(torch.load(written.paths[0], weights_only=True)) == set(golden.detector(triplets=True))
    checkpoint = checkpoint_of(written.paths[0])  # which checks the triplets against main
    assert checkpoint.layout == "effort-fork"
    torch.testing.assert_close(
        logits_of(detector_of(written.paths[0]), images), logits_of(detector_of(path), images), rtol=0, atol=0
    )


def test_the_same_state_gives_the_same_file(tmp_path, trained):
    checkpoint = checkpoint_of(trained[0])

    first, second = (
        layout.export_deepfakebench(checkpoint, tmp_path / name).paths[0] for name in ("a.pth", "b.pth")
    )

    assert first.read_bytes() == second.read_bytes()


def test_merged_loads_in_transformers_with_every_tensor(tmp_path, trained, images):
    path, _ = trained
    checkpoint = checkpoint_of(path)

    merged.export_merged(checkpoint, tmp_path / "merged")

    model, info = CLIPVisionModel.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    head = load_file(tmp_path / "merged" / "head.safetensors")
    with torch.no_grad():
        features = model.eval()(images).pooler_output
    logits = features @ head["head.weight"].T + head["head.bias"]
    torch.testing.assert_close(logits, logits_of(detector_of(path), images), rtol=1e-5, atol=1e-5)
    card = json.loads((tmp_path / "merged" / "preprocessor_config.json").read_text())
    assert card["crop_size"] == {"height": golden.RESOLUTION, "width": golden.RESOLUTION}


def test_merged_folders_are_read_back_with_their_head(tmp_path, trained, images):
    path, _ = trained
    checkpoint = checkpoint_of(path)
    merged.export_merged(checkpoint, tmp_path / "merged")

    torch.testing.assert_close(
        logits_of(detector_of(tmp_path / "merged"), images), logits_of(detector_of(path), images),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_merging_is_done_above_bf16(trained):
    """A rank-1 residual lies under bf16's rounding step of the weight; merged in float32 it survives."""
    checkpoint = checkpoint_of(trained[0])
    module = "backbone.encoder.layers.0.self_attn.q_proj"
    tensors = {key: value.clone() for key, value in checkpoint.tensors.items() if key.startswith(module)}
    tensors[f"{module}.weight_main"] = torch.ones(golden.WIDTH, golden.WIDTH)
    for leaf, value in (("S", 1e-3), ("U", 1.0), ("V", 1.0)):
        tensors[f"{module}.{leaf}_residual"].fill_(value)

    merged = layout.effective_weight(tensors, module)

    torch.testing.assert_close(merged, torch.full_like(merged, 1.001))
    naive = tensors[f"{module}.weight_main"].bfloat16() + torch.full_like(merged, 1e-3).bfloat16()
    assert torch.equal(naive.float(), tensors[f"{module}.weight_main"])


@pytest.mark.parametrize("model_class", [CLIPModel, CLIPVisionModel])
def test_peft_adapter_over_plain_clip_scores_as_the_detector(tmp_path, trained, images, model_class):
    peft = pytest.importorskip("peft", reason="the peft extra is not installed")
    path, clip = trained
    model = model_class.from_pretrained(clip).eval()
    tower = "vision_model." if hasattr(model, "vision_model") else ""

    export_peft(checkpoint_of(path), tmp_path / "lora", checkpoint_of(clip), tower=tower)

    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "lora")
    config = adapted.peft_config["default"]
    assert (config.r, config.lora_alpha) == (2 * golden.RANK, 2 * golden.RANK)
    with torch.no_grad():
        vision = getattr(adapted.base_model.model, "vision_model", adapted)
        features = vision(pixel_values=images).pooler_output
    head = load_file(tmp_path / "lora" / "head.safetensors")
    logits = features @ head["head.weight"].T + head["head.bias"]
    torch.testing.assert_close(logits, logits_of(detector_of(path), images), rtol=1e-4, atol=1e-5)


def test_what_lora_trained_goes_back_to_peft_as_what_it_was(tmp_path, trained):
    pytest.importorskip("peft", reason="the peft extra is not installed")
    path, clip = trained
    model, base = checkpoint_of(path), checkpoint_of(clip)
    name = "encoder.layers.0.self_attn.q_proj"
    generator = torch.Generator().manual_seed(2)
    left, right = (torch.randn(golden.WIDTH, 3, generator=generator).double() * 0.1 for _ in range(2))
    for key in [k for k in model.tensors if k.endswith("_residual")]:
        module = key.rpartition(".")[0].removeprefix("backbone.")
        start = svd.split(golden.dense_tower()[f"{module}.weight"], golden.RANK)
        model.tensors[key] = getattr(start, key.rpartition(".")[2][0])
    main = f"backbone.{name}.weight_main"
    model.tensors[main] = (model.tensors[main].double() + left @ right.T).float()

    written = export_peft(model, tmp_path / "lora", base)

    weights = load_file(written.paths[0])
    a, b = (weights[f"base_model.model.vision_model.{name}.lora_{side}.weight"].double() for side in "AB")
    assert len(a) == 3
    torch.testing.assert_close(b @ a, left @ right.T, rtol=0, atol=2e-6)


def test_peft_takes_upstreams_less_exact_main(tmp_path):
    golden.EFFORT["deepfakebench.pth"](tmp_path / "effort.pth")
    golden.DENSE["clip_model.safetensors"](tmp_path / "clip.safetensors")

    written = export_peft(
        checkpoint_of(tmp_path / "effort.pth"),
        tmp_path / "lora",
        checkpoint_of(tmp_path / "clip.safetensors"),
    )

    weights = load_file(written.paths[0])
    name = "base_model.model.vision_model.encoder.layers.1.self_attn.out_proj"
    delta = weights[f"{name}.lora_B.weight"].double() @ weights[f"{name}.lora_A.weight"].double()
    effort = golden.effort_tower()
    module = "encoder.layers.1.self_attn.out_proj"
    dense = (
        effort[f"{module}.weight_main"].double()
        + (effort[f"{module}.U_residual"].double() * effort[f"{module}.S_residual"].double())
        @ effort[f"{module}.V_residual"].double()
    )
    torch.testing.assert_close(
        delta, dense - golden.dense_tower()[f"{module}.weight"].double(), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("other clip", r"differs from .* by more than 8 directions"),
        ("effort base", "without a dense weight"),
        ("unfrozen", r"1 other tensors that differ from .*: backbone\.pre_layrnorm\.bias"),
    ],
)
def test_peft_refuses_what_lora_cannot_say(tmp_path, trained, change, match):
    path, clip = trained
    model, base = checkpoint_of(path), checkpoint_of(clip)
    if change == "other clip":
        base.tensors["backbone.encoder.layers.0.self_attn.q_proj.weight"] = torch.randn(
            golden.WIDTH, golden.WIDTH
        )
    elif change == "effort base":
        base = checkpoint_of(path)
    else:
        model.tensors["backbone.pre_layrnorm.bias"] = model.tensors["backbone.pre_layrnorm.bias"] + 1

    with pytest.raises(UserError, match=match):
        export_peft(model, tmp_path / "lora", base)
    assert not (tmp_path / "lora").exists()


def test_onnx_scores_as_the_detector_at_any_batch_size(tmp_path, trained, images):
    runtime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    path, _ = trained
    checkpoint = checkpoint_of(path)

    export_onnx(checkpoint, tmp_path / "detector.onnx")

    session = runtime.InferenceSession(tmp_path / "detector.onnx")
    detector = detector_of(path)
    for size in (1, 3):
        logits, prob = session.run(["logits", "prob"], {"image": images[:size].numpy()})
        expected = detector({"image": images[:size]})
        torch.testing.assert_close(torch.from_numpy(logits), expected["cls"].detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(prob), expected["prob"].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("missing", "extra"), [("peft", "peft"), ("onnxruntime", "onnx")])
def test_a_missing_extra_is_named_with_the_command(tmp_path, trained, monkeypatch, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    checkpoint, base = checkpoint_of(trained[0]), checkpoint_of(trained[1])
    write = {"peft": lambda *a: export_peft(*a, base), "onnx": export_onnx}[extra]

    with pytest.raises(UserError, match=rf"pip install 'effort-finetune\[{extra}\]'"):
        write(checkpoint, tmp_path / "out")


@pytest.mark.parametrize("to", ["deepfakebench", "merged", "adapter"])
def test_the_command_writes_what_scores_the_same(tmp_path, trained, images, to, capsys):
    path, clip = trained
    out = tmp_path / {"deepfakebench": "out.pth", "merged": "out", "adapter": "out.safetensors"}[to]

    code = main(
        ["export", str(path), "--to", to, "--output", str(out), "--base", str(clip), "--head_width", "16"]
    )

    assert code == 0
    assert f"wrote {out}" in capsys.readouterr().out
    torch.testing.assert_close(
        logits_of(detector_of(out), images), logits_of(detector_of(path), images), rtol=1e-5, atol=1e-5
    )


def test_the_command_asks_for_a_base(tmp_path, trained, capsys):
    code = main(
        ["export", str(trained[0]), "--to", "peft", "--output", str(tmp_path / "x"), "--head_width", "16"]
    )

    assert code == 2
    assert "no --base" in capsys.readouterr().err


def test_the_command_prefers_the_settings_beside_the_checkpoint(tmp_path, trained):
    path, clip = trained
    (tmp_path / "settings.yaml").write_text(
        f"clip_path: {clip}\nhead_width: 16\nresolution: 32\nnEpochs: 4\n"
    )

    assert main(["export", str(path), "--to", "adapter", "--output", str(tmp_path / "a.safetensors")]) == 0

    metadata = read_checkpoint(tmp_path / "a.safetensors").metadata
    assert json.loads(metadata["effort_finetune_adapter"])["settings"]["nEpochs"] == 4


def test_a_merged_folder_is_normalised_as_the_run_was(tmp_path, trained):
    path, clip = trained
    (tmp_path / "settings.yaml").write_text("head_width: 16\nmean: [0.5, 0.4, 0.3]\nstd: [0.2, 0.2, 0.1]\n")
    adapter = tmp_path / "moved" / "a.safetensors"

    assert main(["export", str(path), "--to", "adapter", "--output", str(adapter), "--base", str(clip)]) == 0
    for file in (path, adapter):
        assert main(["export", str(file), "--to", "merged", "--output", str(tmp_path / "merged")]) == 0

        card = json.loads((tmp_path / "merged" / "preprocessor_config.json").read_text())
        assert (card["image_mean"], card["image_std"]) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])


def test_plain_clip_cannot_be_exported(tmp_path, trained, capsys):
    code = main(
        ["export", str(trained[1]), "--to", "merged", "--output", str(tmp_path / "x"), "--head_width", "16"]
    )

    assert code == 2
    assert "without a head" in capsys.readouterr().err
