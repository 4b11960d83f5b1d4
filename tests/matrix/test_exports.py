"""Targets x blocks x start x export: whatever was trained, every export scores as the detector."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModel

from effort_finetune.export import merged
from effort_finetune.export.peft import export_peft
from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights import deepfakebench_layout as layout
from effort_finetune.weights.adapter import save_adapter
from effort_finetune.weights.reader import read_checkpoint

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
    "hidden_act": "gelu",
}
TARGETS = {
    "attention": ["self_attn.*_proj"],
    "mlp": ["mlp.fc?"],
    "mixed": ["self_attn.[qv]_proj", "mlp.fc2"],
}


def load(path, **settings):
    return EffortFinetuneDetector({"resolution": 32, "pretrained_weights": str(path), **settings}).eval()


def nudge(detector):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in detector.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(params=["clip", "effort"])
def start(request, tmp_path, monkeypatch):
    """What a run starts from: plain CLIP, or attention decomposed and trained before; and that plain CLIP."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    detector = EffortFinetuneDetector({"resolution": 32}, tower=random_tower(SHAPE)).eval()
    torch.save(detector.state_dict(), tmp_path / "fresh.pth")
    merged.export_merged(read_checkpoint(tmp_path / "fresh.pth"), tmp_path / "clip")
    (tmp_path / "clip" / "head.safetensors").unlink()
    if request.param == "clip":
        return tmp_path / "clip", tmp_path / "clip"
    effort = load(tmp_path / "clip")
    nudge(effort)
    torch.save(effort.state_dict(), tmp_path / "effort.pth")
    return tmp_path / "effort.pth", tmp_path / "clip"


@pytest.mark.parametrize("layer_range", [None, [1, 1]], ids=["all", "last"])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_every_export_scores_as_the_detector(start, targets, layer_range, tmp_path):
    source, clip = start
    fixed = source.suffix == ".pth" and targets == TARGETS["attention"]  # no layer is left to choose for
    rank = {} if fixed else {"residual_rank": 3}
    trained = load(source, targets=targets, layer_range=layer_range, **rank)
    nudge(trained)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    model, base = read_checkpoint(tmp_path / "trained.pth"), read_checkpoint(source)

    with torch.no_grad():
        expected = trained({"image": images})["cls"]
        for written in (
            layout.export_deepfakebench(model, tmp_path / "host.pth").paths[0],
            layout.export_deepfakebench(model, tmp_path / "fork.pth", effort_fork=True).paths[0],
            merged.export_merged(model, tmp_path / "merged").paths[0].parent,
            save_adapter(tmp_path / "adapter.safetensors", model.tensors, base),
        ):
            logits = load(written)({"image": images})["cls"]
            torch.testing.assert_close(
                logits, expected, rtol=1e-4, atol=1e-5, msg=lambda text, of=written: f"{of.name}: {text}"
            )

        peft = pytest.importorskip("peft", reason="the peft extra is not installed")
        plain = CLIPVisionModel.from_pretrained(clip).eval()
        prefix = "vision_model." if hasattr(plain, "vision_model") else ""
        export_peft(model, tmp_path / "lora", read_checkpoint(clip), tower=prefix)
        features = peft.PeftModel.from_pretrained(plain, tmp_path / "lora")(pixel_values=images).pooler_output
        head = load_file(tmp_path / "lora" / "head.safetensors")
        logits = features @ head["head.weight"].T + head["head.bias"]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
