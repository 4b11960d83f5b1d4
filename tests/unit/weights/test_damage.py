"""Files that are broken, hostile or no checkpoint at all are refused in one line that says why."""

from __future__ import annotations

import os
import pickle

import make_layouts as golden
import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights.reader import read_checkpoint


class _Hostile:
    """Creates a file when unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def _refused(path, match, **kwargs):
    with pytest.raises(UserError, match=match) as caught:
        read_checkpoint(path, **kwargs)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path):
    _refused(tmp_path / "nowhere.pth", "no such file")


def test_an_empty_folder(tmp_path):
    _refused(tmp_path, "no weights file in it")


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "name", ["deepfakebench.pth", "deepfakebench_legacy.pth", "deepfakebench.safetensors"]
)
def test_truncated_files(tmp_path, name, keep):
    path = tmp_path / name
    golden.EFFORT[name](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    _refused(path, "truncated or damaged")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"just some text", "starts with"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, match):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)

    _refused(path, match)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_with_the_reason_and_the_flag_and_does_not_run(tmp_path, zipped):
    path, proof = tmp_path / "evil.pth", tmp_path / "proof"
    torch.save({**golden.detector(), "x": _Hostile(proof)}, path, _use_new_zipfile_serialization=zipped)

    _refused(path, r"needs .*mkdir.*--allow_pickle")
    assert not proof.exists()


def test_a_bare_pickle_is_refused(tmp_path):
    path, proof = tmp_path / "bare.pkl", tmp_path / "proof"
    path.write_bytes(pickle.dumps(_Hostile(proof)))

    with pytest.raises(UserError):
        read_checkpoint(path)
    assert not proof.exists()


def test_allow_pickle_is_the_way_out(tmp_path):
    path = tmp_path / "with_object.pth"
    torch.save({"state_dict": golden.detector(), "args": pytest.approx(1.0)}, path)

    _refused(path, "--allow_pickle")
    checkpoint = read_checkpoint(path, allow_pickle=True)
    assert set(checkpoint.tensors) == set(golden.detector())


def test_a_whole_pickled_module_needs_the_flag(tmp_path):
    path = tmp_path / "module.pth"
    torch.save(golden.clip_model().vision_model, path)

    _refused(path, "--allow_pickle")
    checkpoint = read_checkpoint(path, allow_pickle=True)
    assert checkpoint.wrappers == ("module object",)
    assert set(checkpoint.tensors) == set(golden.prefixed(golden.dense_tower(), "backbone."))


def test_torchscript_archives_need_the_flag(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)

    _refused(path, "TorchScript.*--allow_pickle")


@pytest.mark.parametrize("content", [[1, 2], "text", {}, {"epoch": 3}, {"model": {"epoch": 1}}])
def test_content_that_is_no_state_dict(tmp_path, content):
    path = tmp_path / "content.pth"
    torch.save(content, path)

    _refused(path, "dict of tensors|a list|a str")


def test_a_state_dict_of_which_nothing_matches(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(3, 3), "fc.weight": torch.zeros(2, 3)}, path)

    _refused(path, r"2 tensors, none of them in a known layout \(layer1\.0\.conv1\.weight")


def test_integer_weights(tmp_path):
    path = tmp_path / "quantised.pth"
    torch.save({key: value.to(torch.int8) for key, value in golden.detector().items()}, path)

    _refused(path, r"torch\.int8")


def test_fork_triplets_that_contradict_the_main_weight(tmp_path):
    path = tmp_path / "mixed.pth"
    state = golden.detector(triplets=True)
    state["backbone.encoder.layers.1.self_attn.k_proj.S_r"] *= 1.01
    torch.save(state, path)

    _refused(path, r"1 of 8 modules that do not: backbone\.encoder\.layers\.1\.self_attn\.k_proj")


def test_stacked_projections_that_are_not_three(tmp_path):
    path = tmp_path / "open_clip.pt"
    state = golden.open_clip()
    state["visual.transformer.resblocks.0.attn.in_proj_bias"] = torch.zeros(97)
    torch.save(state, path)

    _refused(path, "in_proj_bias of shape")


def test_a_peft_folder_is_named_as_such(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="a PEFT adapter, which is written for PEFT to read"):
        read_checkpoint(tmp_path)


def test_a_sharded_folder_is_named_as_such(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")

    with pytest.raises(UserError, match=r"in several files .*; next: .*max_shard_size"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("state", "key", "change", "match"),
    [
        (golden.detector, "head.bias", torch.Tensor.to_sparse, r"torch\.sparse_coo in head\.bias"),
        (golden.universalfakedetect, "fc.bias", lambda bias: bias[0], r"head\.bias \[\] for \[2\]"),
        (
            golden.detector,
            "backbone.embeddings.patch_embedding.weight",
            lambda patches: patches[:, :1],
            r"\[32, 1, 16, 16\] for \[32, 3, 16, 16\]",
        ),
    ],
    ids=["sparse", "scalar bias", "grey"],
)
def test_tensors_of_another_kind_are_refused(tmp_path, state, key, change, match):
    state = state()
    torch.save({**state, key: change(state[key])}, tmp_path / "odd.pth")

    with pytest.raises(UserError, match=match):
        EffortFinetuneDetector(
            {"pretrained_weights": str(tmp_path / "odd.pth"), "resolution": 32, "head_width": 16}
        )
