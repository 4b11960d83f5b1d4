"""Strict loading: what fits is copied and reported, what does not is refused whole, with its list."""

from __future__ import annotations

import make_layouts as golden
import pytest
import torch
from module_tree import model_of

from effort_finetune.core.errors import UserError
from effort_finetune.model.detector import EffortFinetuneDetector
from effort_finetune.weights.loading import CheckpointMismatch
from effort_finetune.weights.reader import load_into, read_checkpoint


def write(tmp_path, state, name="checkpoint.pth"):
    path = tmp_path / name
    torch.save(state, path)
    return path


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_everything_is_loaded_and_reported(tmp_path, device):
    state = golden.detector()
    module = model_of(state, device)

    report = load_into(read_checkpoint(write(tmp_path, state)), module)

    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    assert set(report.loaded) == set(state)
    assert report.counts() == {
        "loaded": len(state), "derived": 0, "ignored": 0, "missing": 0, "unexpected": 0, "wrong_shape": 0
    }  # fmt: skip
    assert report.to_dict()["sha256"] == report.sha256
    assert (report.rank, report.resolution, report.head_outputs) == (1, 32, 2)


def test_loaded_tensors_do_not_depend_on_the_file(tmp_path):
    state = golden.detector()
    path = write(tmp_path, state)
    module = model_of(state, "meta")
    load_into(read_checkpoint(path), module)

    path.write_bytes(bytes(path.stat().st_size))

    torch.testing.assert_close(module.state_dict()["head.weight"], state["head.weight"], rtol=0, atol=0)


def test_requires_grad_survives_a_meta_load(tmp_path):
    state = golden.detector()
    module = model_of(state, "meta")
    module.head.weight.requires_grad_(False)

    load_into(read_checkpoint(write(tmp_path, state)), module)

    assert not module.head.weight.requires_grad
    assert module.head.bias.requires_grad


def test_plain_clip_leaves_the_new_head_alone_and_says_so(tmp_path):
    dense = golden.prefixed(golden.dense_tower(), "backbone.")
    module = model_of({**dense, **golden.prefixed(golden.head(), "head.")})
    path = tmp_path / "clip.safetensors"
    golden.DENSE["clip_model.safetensors"](path)

    report = load_into(read_checkpoint(path), module)

    assert set(report.derived) == {"head.weight", "head.bias"}
    assert all(rule.startswith("new") for rule in report.derived.values())


def test_keys_the_caller_computes_are_derived(tmp_path):
    state = golden.detector()
    module = model_of({**state, "main_norm": torch.zeros(3)})

    report = load_into(
        read_checkpoint(write(tmp_path, state)), module, computed={"main_norm": "from main and residual"}
    )

    assert report.derived == {"main_norm": "from main and residual"}


def _untouched(module):
    return all(not value.any() for value in module.state_dict().values())


def test_missing_extra_and_misshapen_keys_are_listed_together_and_nothing_is_copied(tmp_path):
    state = golden.detector()
    module = model_of(state)
    key = "backbone.encoder.layers.1.mlp.fc1.bias"
    damaged = {k: v for k, v in state.items() if k != key}
    damaged["backbone.encoder.layers.0.foo"] = torch.zeros(1)
    damaged["head.bias"] = torch.zeros(5)

    with pytest.raises(CheckpointMismatch) as caught:
        load_into(read_checkpoint(write(tmp_path, damaged)), module)

    assert caught.value.missing == [key]
    assert caught.value.unexpected == ["backbone.encoder.layers.0.foo"]
    assert caught.value.wrong_shape == {"head.bias": "[5] for [2]"}
    line = str(caught.value)
    assert "\n" not in line
    assert all(word in line for word in (key, "backbone.encoder.layers.0.foo", "head.bias [5] for [2]"))
    assert _untouched(module)


@pytest.mark.parametrize("name", golden.EFFORT)
def test_a_key_taken_from_any_layout_is_missed(tmp_path, name):
    path = tmp_path / name
    golden.EFFORT[name](path)
    module = model_of(golden.detector())
    checkpoint = read_checkpoint(path)
    del checkpoint.tensors["backbone.encoder.layers.0.self_attn.v_proj.U_residual"]

    with pytest.raises(CheckpointMismatch, match=r"1 missing: .*v_proj\.U_residual"):
        load_into(checkpoint, module)


@pytest.mark.parametrize("leaf", ["S_residual", "U_residual", "V_residual", "weight_main"])
def test_a_missing_factor_is_named_as_it_is(tmp_path, leaf):
    key = f"backbone.encoder.layers.0.self_attn.v_proj.{leaf}"
    path = write(tmp_path, {k: v for k, v in golden.detector().items() if k != key})

    with pytest.raises(CheckpointMismatch, match=rf"got 1 missing: {key}; expected"):
        EffortFinetuneDetector({"pretrained_weights": str(path), "resolution": 32, "head_width": 16})


def test_a_missing_head_is_missing_in_an_effort_checkpoint(tmp_path):
    state = golden.detector()
    path = write(tmp_path, {k: v for k, v in state.items() if not k.startswith("head.")})

    with pytest.raises(CheckpointMismatch) as caught:
        load_into(read_checkpoint(path), model_of(state))

    assert caught.value.missing == ["head.weight", "head.bias"]


def test_long_lists_are_abbreviated_with_a_count(tmp_path):
    state = golden.detector()
    partial = {k: v for k, v in state.items() if ".mlp." not in k}

    with pytest.raises(CheckpointMismatch, match=r"8 missing: .* and 4 more"):
        load_into(read_checkpoint(write(tmp_path, partial)), model_of(state))


def test_tensors_beside_the_state_dict_that_nothing_explains_are_refused(tmp_path):
    state = golden.detector()
    path = write(tmp_path, {"state_dict": state, "prototypes": torch.zeros(4)})

    with pytest.raises(CheckpointMismatch, match="1 unexpected: prototypes"):
        load_into(read_checkpoint(path), model_of(state))


def test_a_resolution_that_disagrees_names_both(tmp_path):
    checkpoint = read_checkpoint(write(tmp_path, golden.detector()))

    checkpoint.require_resolution(32)
    with pytest.raises(UserError, match=r"224 in the settings.*5 positions of 16 px patches, which is 32"):
        checkpoint.require_resolution(224)


def test_positions_that_form_no_square_are_refused(tmp_path):
    state = golden.detector()
    state["backbone.embeddings.position_embedding.weight"] = torch.zeros(7, golden.WIDTH)

    with pytest.raises(UserError, match="7 positions"):
        _ = read_checkpoint(write(tmp_path, state)).resolution


def test_a_head_width_that_does_not_divide_is_refused(tmp_path):
    checkpoint = read_checkpoint(write(tmp_path, golden.detector()), head_width=64)

    with pytest.raises(UserError, match=r"head_width.*32 wide"):
        _ = checkpoint.heads


def test_incomplete_files_are_seen_without_a_model(tmp_path):
    state = golden.detector()
    state.pop("backbone.encoder.layers.0.self_attn.q_proj.S_residual")
    state["backbone.surprise"] = torch.zeros(1)
    checkpoint = read_checkpoint(write(tmp_path, state))

    assert checkpoint.missing == ["backbone.encoder.layers.0.self_attn.q_proj.S_residual"]
    with pytest.raises(UserError, match=r"1 missing: .*S_residual; 1 unexpected: backbone\.surprise"):
        checkpoint.require_complete()


@pytest.mark.parametrize("leaf", ["weight", "residual_energy_ref"])
def test_a_dense_weight_beside_a_decomposed_one_is_left_over(tmp_path, leaf):
    """Two weights of one module: nobody can say which one the file means."""
    key = f"backbone.encoder.layers.0.self_attn.q_proj.{leaf}"
    checkpoint = read_checkpoint(write(tmp_path, {**golden.detector(), key: torch.zeros(1)}))

    if leaf == "residual_energy_ref":  # of the loss, not of the forward path
        checkpoint.require_complete()
        return
    with pytest.raises(UserError, match=r"1 unexpected: .*q_proj\.weight"):
        checkpoint.require_complete()


QUERY = "backbone.encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    """The attention kernels of some devices turn a NaN into finite, wrong scores."""
    state = {k: v.clone() for k, v in golden.detector().items()}
    state[f"{QUERY}.weight_main"][0, 0] = value
    checkpoint = read_checkpoint(write(tmp_path, state))
    module = model_of(state)

    with pytest.raises(UserError, match=r"NaN or infinity in 1 of 65 tensors: .*q_proj\.weight_main"):
        load_into(checkpoint, module)
    assert _untouched(module)
    with pytest.raises(UserError, match="NaN or infinity"):
        checkpoint.require_complete()


def test_large_weights_are_numbers(tmp_path):
    """Their sum overflows; they do not."""
    state = {k: v.clone() for k, v in golden.detector().items()}
    state[f"{QUERY}.bias"].fill_(3e38)

    load_into(read_checkpoint(write(tmp_path, state)), model_of(state))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"U_residual": (32, 2), "V_residual": (2, 32)}, r"U_residual \[32, 2\] for \[32, 1\]"),
        ({"V_residual": (32, 1)}, r"V_residual \[32, 1\] for \[1, 32\]"),
        ({"S_residual": (40,), "U_residual": (32, 40), "V_residual": (40, 32)}, "rank 40 .* 32x32"),
    ],
)
def test_factors_that_do_not_fit_are_seen_without_a_model(tmp_path, change, match):
    """A one-value S would be spread over both columns of U, and exported so."""
    state = golden.detector()
    state |= {f"{QUERY}.{leaf}": torch.ones(shape) for leaf, shape in change.items()}

    with pytest.raises(UserError, match=match):
        read_checkpoint(write(tmp_path, state)).require_complete()


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_head_of_another_number_of_classes_is_seen_without_a_model(tmp_path, outputs):
    state = {**golden.detector(), **golden.prefixed(golden.head(outputs=outputs), "head.")}

    with pytest.raises(UserError, match=rf"head\.weight \[{outputs}, 32\] for \[2, 32\]"):
        read_checkpoint(write(tmp_path, state)).require_complete()


def test_an_averaged_models_counter_is_ignored(tmp_path):
    """What DeepfakeBench's trainer saves of its SWA model."""
    state = {"n_averaged": torch.tensor(3), **golden.prefixed(golden.detector(), "module.")}
    module = model_of(golden.detector())

    report = load_into(read_checkpoint(write(tmp_path, state)), module)

    assert report.counts()["loaded"] == len(golden.detector())
    assert list(report.ignored) == ["n_averaged"]
