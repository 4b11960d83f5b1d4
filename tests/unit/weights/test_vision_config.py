"""Activation, heads and layer-norm epsilon, which no tensor tells: stated in every file of ours."""

from __future__ import annotations

import json
from dataclasses import asdict

import make_layouts as golden
import pytest
import torch
from module_tree import model_of
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.export.peft import export_peft
from effort_finetune.model.backbone import random_tower
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights import deepfakebench_layout as layout
from effort_finetune.weights import run_state as run_files
from effort_finetune.weights import vision_config
from effort_finetune.weights.adapter import save_adapter
from effort_finetune.weights.inspection import inspect_file
from effort_finetune.weights.reader import read_checkpoint

SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-2,
}  # fmt: skip
TEXT = {
    "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def clip(tmp_path):
    """A CLIP folder of a tower that differs from OpenAI's in everything no tensor tells."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=SHAPE, projection_dim=8))
        for parameter in model.parameters():  # so that activation, heads and epsilon show in the features
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def detector_of(path, **settings):
    return EffortFinetuneDetector({"pretrained_weights": str(path), "resolution": 32, **settings}).eval()


@pytest.fixture
def trained(clip):
    detector = EffortFinetuneDetector({"clip_path": str(clip), "resolution": 32}).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in detector.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return detector


@pytest.fixture
def best(trained, tmp_path):
    run_files.save_best(tmp_path / "ckpt_best.pth", trained)
    return tmp_path / "ckpt_best.pth"


def logits_of(detector, images):
    with torch.no_grad():
        return detector({"image": images})["cls"]


def _last(detector, path, clip):
    changing = run_files.changing_names(detector)
    frozen = asdict(run_files.write_frozen(path.parent, detector, changing))
    run_files.save_last(
        path, {"frozen": frozen, "changing": run_files.copy_of(detector, changing), "best": None}
    )


def _adapter(detector, path, clip):
    save_adapter(path, detector.state_dict(), read_checkpoint(clip))


WRITERS = {
    "ckpt_best.pth": lambda d, path, clip: run_files.save_best(path, d),
    "ckpt_last.pth": _last,
    "host.pth": lambda d, path, clip: torch.save(d.state_dict(), path),
    "legacy.pth": lambda d, path, clip: torch.save(
        d.state_dict(), path, _use_new_zipfile_serialization=False
    ),
    "parallel.pth": lambda d, path, clip: torch.save(nn.DataParallel(d).state_dict(), path),
    "compiled.pth": lambda d, path, clip: torch.save(
        nn.ModuleDict({"module": nn.ModuleDict({"_orig_mod": d})}).state_dict(), path
    ),
    "adapter.safetensors": _adapter,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_of_ours_comes_back_as_the_tower_it_was(trained, clip, tmp_path, images, name):
    WRITERS[name](trained, tmp_path / name, clip)
    if name == "adapter.safetensors":  # the base alone says nothing
        clip = (clip / "model.safetensors").rename(tmp_path / "alone.safetensors")

    again = detector_of(tmp_path / name, clip_path=str(clip))

    assert torch.equal(logits_of(again, images), logits_of(trained, images))
    assert (again.load_report.hidden_act, again.load_report.hidden_act_origin) == ("gelu", "stated")
    assert again.load_report.notes == ()


@pytest.mark.parametrize("to", ["deepfakebench", "effort-fork", "merged", "adapter"])
def test_every_export_comes_back_as_the_tower_it_was(best, trained, clip, tmp_path, images, to, capsys):
    suffix = {"merged": "", "adapter": ".safetensors"}.get(to, ".pth")
    out = tmp_path / f"out{suffix}"

    assert main(["export", str(best), "--to", to, "--output", str(out), "--base", str(clip)]) == 0

    again = detector_of(out)
    torch.testing.assert_close(logits_of(again, images), logits_of(trained, images), rtol=1e-5, atol=1e-5)
    assert ("this model computes with gelu" in capsys.readouterr().out) == (suffix == ".pth")


def test_onnx_computes_with_the_towers_activation(best, trained, tmp_path, images):
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

    assert main(["export", str(best), "--to", "onnx", "--output", str(tmp_path / "out.onnx")]) == 0

    session = runtime.InferenceSession(tmp_path / "out.onnx")
    logits, _ = session.run(["logits", "prob"], {"image": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), logits_of(trained, images), rtol=1e-4, atol=1e-5)


def test_peft_refuses_a_base_that_computes_otherwise(best, clip, tmp_path):
    pytest.importorskip("peft", reason="the peft extra is not installed")
    export_peft(read_checkpoint(best), tmp_path / "lora", read_checkpoint(clip))
    config = json.loads((clip / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "quick_gelu"
    (clip / "config.json").write_text(json.dumps(config))

    with pytest.raises(UserError, match="hidden_act quick_gelu; expected the model's gelu"):
        export_peft(read_checkpoint(best), tmp_path / "other", read_checkpoint(clip))


def test_the_statement_adds_no_key_and_survives_a_safe_read(best, trained):
    state = torch.load(best, weights_only=True)

    assert set(state) == set(trained.state_dict())
    assert vision_config.of_state(state, "file").config["hidden_act"] == "gelu"
    assert str(trained.load_state_dict(state, strict=True)) == "<All keys matched successfully>"


def test_a_foreign_module_takes_the_file_strictly(best):
    """As DeepfakeBench's own test.py loads it: into a module that knows nothing of us."""
    state = torch.load(best, weights_only=True)
    foreign = model_of(state)

    assert str(foreign.load_state_dict(state, strict=True)) == "<All keys matched successfully>"


def test_a_detector_of_another_tower_refuses_the_state(best):
    other = EffortFinetuneDetector(
        {"resolution": 32}, tower=random_tower({**SHAPE, "hidden_act": "quick_gelu"})
    )
    state = torch.load(best, weights_only=True)

    with pytest.raises(RuntimeError, match="tower with hidden_act 'gelu', this one has 'quick_gelu'"):
        other.load_state_dict(state)


def test_a_file_cut_by_whole_blocks_is_told_from_a_shorter_tower(best, tmp_path):
    state = torch.load(best, weights_only=True)
    for key in [k for k in state if ".layers.1." in k]:
        del state[key]
    torch.save(state, tmp_path / "cut.pth")

    with pytest.raises(UserError, match="missing: .*layers.1."):
        detector_of(tmp_path / "cut.pth")


def test_settings_win_and_the_report_says_so(best, images):
    again = detector_of(best, hidden_act="quick_gelu", head_width=16)

    assert (again.backbone.config.hidden_act, again.backbone.config.num_attention_heads) == ("quick_gelu", 2)
    report = again.load_report.to_dict()
    assert (report["hidden_act"], report["hidden_act_origin"]) == ("quick_gelu", "settings")
    assert any("hidden_act quick_gelu as the settings ask" in note for note in report["notes"])
    assert any("num_attention_heads 2 as the settings ask" in note for note in report["notes"])


def bare(tmp_path, state, name="weights.pth"):
    torch.save(dict(state), tmp_path / name)
    return tmp_path / name


def test_a_bare_file_takes_the_settings(trained, tmp_path, images):
    path = bare(tmp_path, trained.state_dict())

    told = detector_of(path, hidden_act="gelu", head_width=8)
    untold = detector_of(path, head_width=8)

    assert told.backbone.config.hidden_act == "gelu"
    assert told.load_report.notes == ()
    assert untold.load_report.hidden_act_origin == "assumed"
    assert not torch.allclose(logits_of(told, images), logits_of(untold, images))


def test_an_assumption_is_noted_where_the_tower_may_be_anyones(tmp_path):
    clip = bare(tmp_path, golden.prefixed(golden.dense_tower(), "vision_model."), "clip.pth")
    effort = bare(tmp_path, golden.detector(), "effort.pth")
    torch.save(golden.open_clip(), tmp_path / "openai.pt")
    anyones = {k: v for k, v in golden.open_clip().items() if k != "input_resolution"}

    def notes(path, **given):
        return read_checkpoint(path, **given).tower_notes

    assert "hidden_act quick_gelu is assumed" in notes(clip)[0]
    assert "hidden_act quick_gelu is assumed" in notes(bare(tmp_path, anyones, "open_clip.pt"))[0]
    assert notes(clip, hidden_act="gelu") == notes(tmp_path / "openai.pt") == notes(effort) == ()


def test_the_heads_of_a_tower_wider_than_openais_are_not_assumed_silently(tmp_path):
    state = golden.detector()
    state["backbone.embeddings.patch_embedding.weight"] = torch.zeros(1280, 3, 16, 16)

    notes = read_checkpoint(bare(tmp_path, state)).tower_notes

    assert len(notes) == 2
    assert "hidden_act quick_gelu is assumed" in notes[0]
    assert "heads of width 64 are assumed" in notes[1]


def test_a_weights_file_named_inside_its_folder_is_that_folders(clip):
    assert read_checkpoint(clip / "model.safetensors").stated == read_checkpoint(clip).stated
    assert read_checkpoint(clip).stated == {**vision_config.DEFAULTS, **SHAPE}


def test_a_foreign_config_beside_a_named_file_says_nothing(clip):
    (clip / "config.json").write_text('{"architecture": "vit_large"}')

    assert read_checkpoint(clip / "model.safetensors").stated == {}
    with pytest.raises(UserError, match=r"no config\.json or open_clip_config\.json of a CLIP vision tower"):
        read_checkpoint(clip)


def test_the_head_width_of_an_open_clip_config_counts(clip):
    vision = {"width": 32, "layers": 2, "head_width": 8, "patch_size": 16}
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": vision}}))
    (clip / "config.json").unlink()

    checkpoint = read_checkpoint(clip)

    assert (checkpoint.heads, checkpoint.hidden_act, checkpoint.layers) == (4, "gelu", 2)


def test_of_two_configs_the_one_made_for_the_weights_counts(clip):
    (clip / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    assert read_checkpoint(clip).hidden_act == "gelu"

    (clip / "model.safetensors").rename(clip / "open_clip_model.safetensors")
    assert read_checkpoint(clip).hidden_act == "quick_gelu"


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("num_attention_heads", 5, "5 heads stated for a tower 32 wide"),
        ("num_attention_heads", -4, "num_attention_heads: -4"),
        ("layer_norm_eps", "tiny", "layer_norm_eps: 'tiny'"),
        ("hidden_act", "swoosh", "hidden_act; got swoosh"),
        ("num_hidden_layers", True, "num_hidden_layers: True"),
    ],
)
def test_damaged_statements_are_refused(best, tmp_path, key, value, match):
    state = torch.load(best, weights_only=True)
    torch.save(
        vision_config.stating(state, vision_config.Said({**SHAPE, key: value})), tmp_path / "damaged.pth"
    )

    with pytest.raises(UserError, match=match):
        detector_of(tmp_path / "damaged.pth")


def test_defaults_are_transformers_own():
    config = CLIPVisionConfig()
    assert {key: getattr(config, key) for key in vision_config.DEFAULTS} == dict(vision_config.DEFAULTS)


def test_nothing_assumed_is_stated_by_an_export(tmp_path):
    checkpoint = read_checkpoint(bare(tmp_path, golden.detector()))

    layout.export_deepfakebench(checkpoint, tmp_path / "out.pth")

    assert read_checkpoint(tmp_path / "out.pth").stated == {}


def test_an_adapter_without_a_statement_takes_its_bases(trained, clip, tmp_path, images):
    """As the first adapters were written."""
    path = tmp_path / "adapter.safetensors"
    _adapter(trained, path, clip)
    header = json.loads(read_checkpoint(path).metadata["effort_finetune_adapter"])
    del header["vision_config"]
    save_file(load_file(path), path, metadata={"effort_finetune_adapter": json.dumps(header)})

    assert torch.equal(logits_of(detector_of(path), images), logits_of(trained, images))


def test_inspect_tells_activation_heads_and_who_says_so(best, tmp_path, capsys):
    document = inspect_file(best)
    assert (document["heads"], document["hidden_act"], document["hidden_act_origin"]) == (4, "gelu", "stated")

    assert main(["inspect", str(bare(tmp_path, golden.dense_tower()))]) == 0
    out = capsys.readouterr().out
    assert "assumed" in out
    assert "set hidden_act to be sure" in out


def test_a_given_tower_is_not_another_than_the_settings_say():
    with pytest.raises(UserError, match="hidden_act; got quick_gelu in the settings, gelu in the tower"):
        EffortFinetuneDetector({"resolution": 32, "hidden_act": "quick_gelu"}, tower=random_tower(SHAPE))


def test_a_later_versions_further_statements_are_passed_over(best, trained, tmp_path):
    state = torch.load(best, weights_only=True)
    later = vision_config.stating(state, vision_config.Said({**SHAPE, "rope": 1}))

    assert str(trained.load_state_dict(later)) == "<All keys matched successfully>"
    assert vision_config.of_state(later, "file").config == SHAPE
