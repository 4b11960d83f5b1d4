"""Every layout becomes the same canonical tensors, and every key of the file is accounted for."""

from __future__ import annotations

import copy
import hashlib
import pickle

import make_layouts as golden
import pytest
import torch

from effort_finetune.weights.hashing import BackgroundHash
from effort_finetune.weights.reader import read_checkpoint


def _read(tmp_path, writers, name):
    path = tmp_path / name
    writers[name](path)
    return read_checkpoint(path, head_width=golden.HEAD_WIDTH)


def _assert_same(tensors, expected):
    assert set(tensors) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(tensors[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("name", golden.EFFORT)
def test_effort_layouts_become_the_detector(tmp_path, name):
    checkpoint = _read(tmp_path, golden.EFFORT, name)

    _assert_same(checkpoint.tensors, golden.detector())
    assert checkpoint.unexpected == []
    assert checkpoint.missing == []
    assert (checkpoint.rank, checkpoint.resolution, checkpoint.head_outputs) == (1, 32, 2)
    assert len(checkpoint.residual_ranks) == golden.BLOCKS * 4
    assert "encoder.layers.0.self_attn.q_proj" in checkpoint.residual_ranks


@pytest.mark.parametrize("name", golden.ONE_LOGIT)
def test_one_logit_head_becomes_two_with_the_same_probability(tmp_path, name):
    checkpoint = _read(tmp_path, golden.ONE_LOGIT, name)

    _assert_same(
        {k: v for k, v in checkpoint.tensors.items() if k.startswith("backbone.")},
        golden.prefixed(golden.effort_tower(), "backbone."),
    )
    one, two = golden.head(outputs=1), checkpoint.tensors
    features = torch.randn(64, golden.WIDTH, dtype=torch.float64)
    z = features @ one["weight"].double().T + one["bias"].double()
    logits = features @ two["head.weight"].double().T + two["head.bias"].double()
    torch.testing.assert_close(logits.softmax(1)[:, 1], z[:, 0].sigmoid(), rtol=1e-14, atol=1e-15)
    assert set(checkpoint.derived) == {"head.weight", "head.bias"}
    assert checkpoint.unexpected == []
    assert any(key.startswith("model.text_model.") for key in checkpoint.ignored)


@pytest.mark.parametrize("name", golden.DENSE)
def test_plain_clip_becomes_the_dense_tower(tmp_path, name):
    checkpoint = _read(tmp_path, golden.DENSE, name)

    _assert_same(checkpoint.tensors, golden.prefixed(golden.dense_tower(), "backbone."))
    assert checkpoint.unexpected == []
    assert checkpoint.missing == []
    assert (checkpoint.rank, checkpoint.head_outputs, checkpoint.residual_ranks) == (None, None, {})


@pytest.mark.parametrize(
    ("writers", "name", "layout", "wrappers"),
    [
        (golden.EFFORT, "deepfakebench.pth", "deepfakebench", ()),
        (golden.EFFORT, "effort_fork.pth", "effort-fork", ()),
        (golden.EFFORT, "ddp.pth", "deepfakebench", ("ddp",)),
        (golden.EFFORT, "nested.pth", "deepfakebench", ("model", "state_dict", "ddp")),
        (golden.ONE_LOGIT, "universalfakedetect.pth", "universalfakedetect", ("model",)),
        (golden.DENSE, "clip_vision_4.safetensors", "clip-vision-model", ()),
        (golden.DENSE, "clip_vision_5_6.safetensors", "clip-vision-model-5.6", ()),
        (golden.DENSE, "open_clip_training.pt", "open-clip", ("state_dict", "ddp")),
    ],
)
def test_layout_and_wrappers_are_named(tmp_path, writers, name, layout, wrappers):
    checkpoint = _read(tmp_path, writers, name)

    assert (checkpoint.layout, checkpoint.wrappers) == (layout, wrappers)


def test_training_state_beside_the_weights_is_ignored_by_name(tmp_path):
    checkpoint = _read(tmp_path, golden.EFFORT, "ckpt_last.pth")

    assert checkpoint.ignored["optimizer"] == "optimizer state"
    assert set(checkpoint.ignored) == {"optimizer", "total_steps", "epoch"}


def test_position_ids_are_ignored_by_name(tmp_path):
    checkpoint = _read(tmp_path, golden.DENSE, "pytorch_model.bin")

    assert "transformers before 4.31" in checkpoint.ignored["vision_model.embeddings.position_ids"]


def test_fork_triplets_are_ignored_as_derivable(tmp_path):
    checkpoint = _read(tmp_path, golden.EFFORT, "effort_fork.pth")

    assert sum("derivable" in rule for rule in checkpoint.ignored.values()) == golden.BLOCKS * 4 * 3


def test_sizes_come_from_the_shapes(tmp_path):
    checkpoint = _read(tmp_path, golden.EFFORT, "deepfakebench.pth")

    assert checkpoint.hidden_size == golden.WIDTH
    assert checkpoint.layers == golden.BLOCKS
    assert checkpoint.intermediate_size == golden.MLP
    assert checkpoint.patch_size == golden.PATCH
    assert checkpoint.heads == golden.HEADS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_storage_is_brought_to_float32_and_counted(tmp_path, dtype):
    path = tmp_path / "half.pth"
    half = {key: value.to(dtype) for key, value in golden.detector().items()}
    torch.save(half, path)

    checkpoint = read_checkpoint(path)

    assert checkpoint.converted == {str(dtype).removeprefix("torch."): len(half)}
    _assert_same(checkpoint.tensors, {key: value.float() for key, value in half.items()})


def test_sha256_is_the_files(tmp_path):
    checkpoint = _read(tmp_path, golden.EFFORT, "deepfakebench.pth")

    digest = hashlib.sha256((tmp_path / "deepfakebench.pth").read_bytes()).hexdigest()
    assert checkpoint.sha256 == digest
    assert copy.deepcopy(checkpoint.hash).value() == digest
    assert pickle.loads(pickle.dumps(checkpoint.hash)).value() == digest


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        BackgroundHash(tmp_path / "gone")
    with pytest.raises(IsADirectoryError):
        BackgroundHash(tmp_path).value()


def test_the_hash_is_that_of_the_file_that_was_read(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"read")
    found = BackgroundHash(path)
    (tmp_path / "next").write_bytes(b"its successor")
    (tmp_path / "next").replace(path)
    assert found.value() == hashlib.sha256(b"read").hexdigest()
