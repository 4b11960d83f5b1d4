"""An adapter restores the fine-tuned model on its base, from any layout, and on no other base."""

from __future__ import annotations

import json

import make_layouts as golden
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from effort_finetune.core.errors import UserError
from effort_finetune.svd import decompose as svd
from effort_finetune.weights import adapter, adapter_header, safe_io
from effort_finetune.weights.inspection import inspect_file
from effort_finetune.weights.reader import read_checkpoint


@pytest.fixture
def effort_base(tmp_path):
    path = tmp_path / "base.pth"
    torch.save(golden.detector(), path)
    return path


@pytest.fixture
def clip_base(tmp_path):
    path = tmp_path / "clip.safetensors"
    golden.DENSE["clip_model.safetensors"](path)
    return path


def trained(state, seed=5):
    """The state after some training of residuals and head."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: value + 0.1 * torch.randn(value.shape, generator=generator)
        if key.startswith("head.") or key.endswith("_residual")
        else value.clone()
        for key, value in state.items()
    }


def from_clip(rank=1, dense=None):
    """A state started from plain CLIP, as the model room decomposes it, and then trained."""
    dense = dense or golden.dense_tower()
    state = {}
    for key, value in dense.items():
        module, _, leaf = key.rpartition(".")
        if leaf == "weight" and module.endswith(golden.PROJECTIONS):
            parts = svd.split(value, rank)
            state[f"backbone.{module}.weight_main"] = parts.main
            for name in "SUV":
                state[f"backbone.{module}.{name}_residual"] = getattr(parts, name)
        else:
            state[f"backbone.{key}"] = value
    return trained({**state, **golden.prefixed(golden.head(), "head.")})


def save(tmp_path, state, base_path, **kwargs):
    return adapter.save_adapter(tmp_path / "adapter.safetensors", state, read_checkpoint(base_path), **kwargs)


def assert_states_equal(got, expected):
    assert set(got) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=0, atol=0, msg=key)


def test_over_an_effort_checkpoint_everything_comes_back_to_the_bit(tmp_path, effort_base):
    state = trained(golden.detector())

    path = save(tmp_path, state, effort_base)

    assert_states_equal(read_checkpoint(path).tensors, state)
    assert set(load_file(path)) == {k for k in state if k.startswith("head.") or k.endswith("_residual")}


@pytest.mark.parametrize("rank", [1, 3])
def test_over_plain_clip_main_is_derived_again(tmp_path, clip_base, rank):
    state = from_clip(rank)

    path = save(tmp_path, state, clip_base)
    checkpoint = read_checkpoint(path)

    assert_states_equal(checkpoint.tensors, state)
    assert checkpoint.rank == rank
    assert not any(key.endswith("_base") for key in load_file(path))
    assert len(checkpoint.derived) == golden.BLOCKS * 4


def test_the_base_may_be_in_another_layout(tmp_path, clip_base):
    state = from_clip()
    path = save(tmp_path, state, clip_base)
    golden.DENSE["open_clip.pt"](tmp_path / "open_clip.pt")

    assert_states_equal(read_checkpoint(path, base=tmp_path / "open_clip.pt").tensors, state)


def test_triplets_are_stored_where_the_base_does_not_determine_them(tmp_path):
    dense = golden.dense_tower()
    q = "encoder.layers.0.self_attn.q_proj.weight"
    dense[q] = (
        torch.linalg.qr(torch.randn(golden.WIDTH, golden.WIDTH, dtype=torch.float64))[0].float().contiguous()
    )
    base = tmp_path / "clip.safetensors"
    save_file(dense, base)
    state = from_clip(dense=dense)

    path = save(tmp_path, state, base)

    stored = {key for key in load_file(path) if key.endswith("_base")}
    assert stored == {f"backbone.{q.removesuffix('weight')}{name}_base" for name in "SUV"}
    assert_states_equal(read_checkpoint(path).tensors, state)


def test_unfrozen_tensors_travel_with_the_adapter(tmp_path, effort_base):
    state = trained(golden.detector())
    state["backbone.encoder.layers.1.layer_norm2.weight"] += 0.5

    path = save(tmp_path, state, effort_base)

    assert "backbone.encoder.layers.1.layer_norm2.weight" in load_file(path)
    assert_states_equal(read_checkpoint(path).tensors, state)


def test_the_header_tells_base_targets_preprocessing_and_settings(tmp_path, effort_base):
    path = save(
        tmp_path,
        trained(golden.detector()),
        effort_base,
        base_name="my/base",
        settings={"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        settings_digest="abc",
    )

    with safe_open(path, "pt") as file:
        info = adapter_header.AdapterInfo.from_metadata(file.metadata(), "adapter")
    assert info.base["name"] == "my/base"
    assert info.base["file_sha256"] == read_checkpoint(effort_base).sha256
    assert len(info.targets) == golden.BLOCKS * 4
    assert info.preprocessing["resolution"] == golden.RESOLUTION
    assert info.preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert info.preprocessing["std"] == [0.25, 0.25, 0.25]
    assert (info.rank, info.settings_digest) == (1, "abc")
    document = inspect_file(path)
    assert document["layout"] == "adapter"
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    "key",
    ["backbone.encoder.layers.0.self_attn.q_proj.weight_main", "backbone.pre_layrnorm.bias"],
)
def test_another_base_is_refused_unless_asked_for_and_then_recorded(tmp_path, effort_base, key):
    path = save(tmp_path, trained(golden.detector()), effort_base)
    other = {k: v.clone() for k, v in golden.detector().items()}
    other[key].view(-1)[0] += 1e-3
    torch.save(other, tmp_path / "other.pth")

    part = "targeted" if key.endswith("weight_main") else "frozen"
    with pytest.raises(
        UserError, match=rf"differs from the adapter's base .* in its {part} weights"
    ) as caught:
        read_checkpoint(path, base=tmp_path / "other.pth")
    assert "--allow_base_mismatch" in str(caught.value)

    checkpoint = read_checkpoint(path, base=tmp_path / "other.pth", allow_base_mismatch=True)
    assert len(checkpoint.notes) == 1
    assert "other.pth differs" in checkpoint.notes[0]


def test_a_base_that_is_gone_is_asked_for(tmp_path, effort_base):
    state = trained(golden.detector())
    path = save(tmp_path, state, effort_base)
    moved = effort_base.rename(tmp_path / "elsewhere.pth")

    with pytest.raises(UserError, match="is not there.*--base"):
        read_checkpoint(path)
    assert_states_equal(read_checkpoint(path, find_base=lambda name: moved).tensors, state)


def test_half_precision_adapters_are_brought_to_float32_and_counted(tmp_path, effort_base):
    state = {key: value.bfloat16() for key, value in trained(golden.detector()).items()}

    checkpoint = read_checkpoint(save(tmp_path, state, effort_base))

    assert {value.dtype for value in checkpoint.tensors.values()} == {torch.float32}
    assert checkpoint.converted["bfloat16"] >= 3 * golden.BLOCKS * 4


def test_an_adapter_is_not_written_over_its_base(tmp_path, effort_base):
    before = effort_base.read_bytes()
    base = read_checkpoint(effort_base)

    with pytest.raises(UserError, match="the base itself"):
        adapter.save_adapter(effort_base, trained(golden.detector()), base)

    assert effort_base.read_bytes() == before


def test_an_adapter_is_not_taken_for_its_own_base(tmp_path, effort_base):
    """Its base is gone and had the adapter's file name."""
    path = save(tmp_path, trained(golden.detector()), effort_base, base_name="/gone/adapter.safetensors")

    with pytest.raises(UserError, match=r"its base /gone/adapter\.safetensors is not there"):
        read_checkpoint(path)


def test_tensors_that_share_memory_are_written_apart(tmp_path, effort_base):
    state = trained(golden.detector())
    blocks = [f"backbone.encoder.layers.{i}.self_attn.q_proj.U_residual" for i in (0, 1)]
    state[blocks[1]] = state[blocks[0]]

    assert_states_equal(read_checkpoint(save(tmp_path, state, effort_base)).tensors, state)


def test_a_model_of_another_base_is_not_saved_as_an_adapter(tmp_path, effort_base):
    with pytest.raises(UserError, match="main weights in 8 of 8 modules that are not from"):
        save(tmp_path, from_clip(dense=golden.dense_tower(seed=9)), effort_base)
    assert not (tmp_path / "adapter.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format_version": 99}, "adapter format 99"),
        ({"surprise": 1}, "damaged adapter header"),
        ({"base": None}, "damaged adapter header"),
        ({"base": {"name": "base.pth", "layout": "deepfakebench"}}, "damaged adapter header .*file_sha256"),
        ({"targets": None}, "damaged adapter header"),
        ({"preprocessing": 3}, "damaged adapter header"),
    ],
)
def test_headers_of_another_format_are_refused(tmp_path, effort_base, change, match):
    path = save(tmp_path, trained(golden.detector()), effort_base)
    with safe_open(path, "pt") as file:
        document = {**json.loads(file.metadata()[adapter_header.METADATA_KEY]), **change}
    save_file(load_file(path), path, metadata={adapter_header.METADATA_KEY: json.dumps(document)})

    with pytest.raises(UserError, match=match):
        read_checkpoint(path)


def test_an_adapter_of_full_size_stays_under_a_megabyte(tmp_path, monkeypatch):
    """24 blocks of ViT-L/14's attention at k = 1, on a base that shares one tensor per shape."""
    monkeypatch.setattr(safe_io, "EXPANSION", 100)  # a base from elsewhere that shared so much is refused
    width, blocks = 1024, 24
    zeros = {"vector": torch.zeros(width), "mlp": torch.zeros(8, width), "mlp_out": torch.zeros(width, 8)}
    main = torch.zeros(width, width)
    state = {
        "backbone.embeddings.class_embedding": zeros["vector"],
        "backbone.embeddings.patch_embedding.weight": torch.zeros(width, 3, 14, 14),
        "backbone.embeddings.position_embedding.weight": torch.zeros(257, width),
        "head.weight": torch.zeros(2, width),
        "head.bias": torch.zeros(2),
    }
    names = ["backbone.pre_layrnorm", "backbone.post_layernorm"]
    for i in range(blocks):
        block = f"backbone.encoder.layers.{i}"
        names += [f"{block}.layer_norm1", f"{block}.layer_norm2"]
        state |= {
            f"{block}.mlp.fc1.weight": zeros["mlp"], f"{block}.mlp.fc1.bias": torch.zeros(8),
            f"{block}.mlp.fc2.weight": zeros["mlp_out"], f"{block}.mlp.fc2.bias": zeros["vector"],
        }  # fmt: skip
        for projection in golden.PROJECTIONS:
            module = f"{block}.self_attn.{projection}"
            state |= {
                f"{module}.weight_main": main, f"{module}.bias": zeros["vector"],
                f"{module}.S_residual": torch.zeros(1), f"{module}.U_residual": torch.zeros(width, 1),
                f"{module}.V_residual": torch.zeros(1, width),
            }  # fmt: skip
    state |= {f"{name}.{leaf}": zeros["vector"] for name in names for leaf in ("weight", "bias")}
    base = tmp_path / "large.pth"
    torch.save(state, base)

    path = save(tmp_path, state, base)

    residual = sum(value.numel() for key, value in state.items() if key.endswith("_residual"))
    assert residual == 196_704
    assert path.stat().st_size <= 1_000_000
