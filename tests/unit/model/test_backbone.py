import json

import pytest
import torch
from toytower import SHAPE
from transformers import CLIPConfig, CLIPModel

from effort_finetune.core.errors import UserError
from effort_finetune.model import backbone
from effort_finetune.model.backbone import build_tower, fill_buffers, locate_clip, random_tower
from effort_finetune.model.detector import EffortFinetuneDetector

TEXT = {
    "vocab_size": 8,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def whole_clip(**vision):
    torch.manual_seed(3)
    return CLIPModel(CLIPConfig(text_config=TEXT, vision_config={**SHAPE, **vision}, projection_dim=8)).eval()


@pytest.fixture
def clip_folder(tmp_path):
    """A folder as transformers writes it, and the model in it; gelu tells it from the default activation."""
    model = whole_clip(hidden_act="gelu")
    model.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip", model


def features(path, image, **settings):
    config = {"resolution": 32, "head_width": 16, "clip_path": str(path), **settings}
    return EffortFinetuneDetector(config).eval()({"image": image})["feat"]


def test_clip_folder_gives_clips_own_features(clip_folder, batch):
    folder, model = clip_folder
    expected = model.vision_model(batch["image"]).pooler_output
    torch.testing.assert_close(features(folder, batch["image"]), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_files_are_brought_to_float32(clip_folder, batch):
    folder, model = clip_folder
    model.half().save_pretrained(folder)
    detector = EffortFinetuneDetector({"resolution": 32, "clip_path": str(folder)})
    assert {p.dtype for p in detector.parameters()} == {torch.float32}
    expected = model.float().vision_model(batch["image"]).pooler_output
    torch.testing.assert_close(detector(batch)["feat"], expected, rtol=1e-4, atol=1e-5)


def test_bin_folder_and_single_file(clip_folder, batch):
    folder, model = clip_folder
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    expected = model.vision_model(batch["image"]).pooler_output
    torch.testing.assert_close(features(folder, batch["image"]), expected, rtol=1e-4, atol=1e-5)
    quick = whole_clip(hidden_act="quick_gelu")
    torch.save(quick.state_dict(), folder / "alone.pth")
    expected = quick.vision_model(batch["image"]).pooler_output
    got = features(folder / "alone.pth", batch["image"])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quick", [True, False])
def test_open_clip_config_tells_the_activation(clip_folder, batch, quick):
    folder, _ = clip_folder
    activation = "quick_gelu" if quick else "gelu"
    model = whole_clip(hidden_act=activation)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": quick}}))
    expected = model.vision_model(batch["image"]).pooler_output
    torch.testing.assert_close(features(folder, batch["image"]), expected, rtol=1e-4, atol=1e-5)


def test_second_start_from_clip_decomposes_nothing(clip_folder, batch, monkeypatch):
    folder, _ = clip_folder
    first = features(folder, batch["image"])

    def forbidden(*_):
        raise AssertionError("a second start computed an SVD")

    monkeypatch.setattr("effort_finetune.svd.decompose.smallest_triplets", forbidden)
    assert torch.equal(features(folder, batch["image"]), first)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_incomplete_folder(clip_folder, missing):
    folder, _ = clip_folder
    (folder / missing).unlink()
    with pytest.raises(UserError, match=missing):
        EffortFinetuneDetector({"resolution": 32, "clip_path": str(folder)})


@pytest.mark.parametrize("content", ["{broken", "[1, 2]"])
def test_damaged_config(clip_folder, content):
    folder, _ = clip_folder
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        EffortFinetuneDetector({"resolution": 32, "clip_path": str(folder)})


def test_resolution_that_is_not_the_checkpoints(clip_folder, make_detector):
    folder, _ = clip_folder
    with pytest.raises(UserError, match=r"64.*32"):
        EffortFinetuneDetector({"resolution": 64, "clip_path": str(folder)})
    with pytest.raises(UserError, match=r"64.*32"):
        make_detector(resolution=64)


@pytest.mark.parametrize("path", ["/no/such/folder", "nowhere/clip.pth", "just-a-name"])
def test_path_that_is_not_there(path):
    with pytest.raises(UserError, match="clip_path.*no such file"):
        locate_clip(path)


def test_hub_id_from_the_cache(tmp_path, monkeypatch, clip_folder):
    folder, _ = clip_folder
    monkeypatch.setattr(
        backbone, "try_to_load_from_cache", lambda _, name: str(folder / name) if "json" in name else None
    )
    fetched = []

    def download(_, name):
        fetched.append(name)
        return str(folder / name)

    monkeypatch.setattr(backbone, "hf_hub_download", download)
    assert locate_clip("some/clip") == folder
    assert fetched == ["model.safetensors"]


def test_hub_that_cannot_be_reached_says_what_to_do(monkeypatch):
    monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda *_: None)

    def offline(*_):
        raise ConnectionError("no route")

    monkeypatch.setattr(backbone, "hf_hub_download", offline)
    with pytest.raises(UserError, match=r"some/clip.*no route.*clip_path.*--pretrained_weights"):
        locate_clip("some/clip")


def test_hub_repository_without_weights(monkeypatch, clip_folder):
    folder, _ = clip_folder
    found = {"config.json": str(folder / "config.json")}
    monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda _, name: found.get(name))

    def absent(*_):
        raise backbone.EntryNotFoundError("404")

    monkeypatch.setattr(backbone, "hf_hub_download", absent)
    with pytest.raises(UserError, match=r"some/clip without model\.safetensors or pytorch_model\.bin"):
        locate_clip("some/clip")


def test_meta_tower_has_no_values_until_it_is_filled():
    tower = build_tower(SHAPE)
    assert all(p.is_meta for p in tower.parameters())
    with pytest.raises(RuntimeError, match="without a value"):
        fill_buffers(tower)
    tower.to_empty(device="cpu")
    fill_buffers(tower)


def test_buffers_of_a_meta_tower_are_filled():
    tower = build_tower(SHAPE)
    for module in tower.modules():
        for name, p in module.named_parameters(recurse=False):
            module.register_parameter(name, torch.nn.Parameter(torch.empty_like(p, device="cpu")))
    fill_buffers(tower)
    assert tower.embeddings.position_ids.tolist() == [list(range(5))]
    tower.load_state_dict(random_tower(SHAPE).state_dict())
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(tower(image).pooler_output, random_tower(SHAPE)(image).pooler_output)


def test_attention_is_sdpa():
    tower = random_tower(SHAPE)
    assert tower.config._attn_implementation == "sdpa"


def test_random_towers_come_from_their_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    a = random_tower(SHAPE, seed=1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    b, c = random_tower(SHAPE, seed=1), random_tower(SHAPE, seed=2)
    weight = "encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(a.get_parameter(weight), b.get_parameter(weight))
    assert not torch.equal(a.get_parameter(weight), c.get_parameter(weight))
