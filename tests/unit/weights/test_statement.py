"""What a model was trained with travels in every file of ours, and nonsense in it is refused."""

from __future__ import annotations

import json

import make_layouts as golden
import pytest
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.export.merged import export_merged
from effort_finetune.weights import statement as room
from effort_finetune.weights.adapter import save_adapter
from effort_finetune.weights.deepfakebench_layout import export_deepfakebench
from effort_finetune.weights.reader import read_checkpoint
from effort_finetune.weights.statement import Statement
from effort_finetune.weights.vision_config import Said, of_state, stating

SAID = Statement(
    (0.5, 0.5, 0.5),
    (0.25, 0.25, 0.25),
    golden.RESOLUTION,
    "bicubic",
    crop={"faces": "dlib", "margin": 1.3},
    calibration={"temperature": 1.25, "bias": -0.5},
)


@pytest.fixture
def checkpoint(tmp_path):
    state = stating(golden.detector(), Said({"num_attention_heads": golden.HEADS}, SAID))
    torch.save(state, tmp_path / "own.pth")
    return read_checkpoint(tmp_path / "own.pth")


def test_a_pth_says_it(checkpoint):
    assert checkpoint.statement == SAID


def test_every_export_says_it(checkpoint, tmp_path):
    export_deepfakebench(checkpoint, tmp_path / "dfb.pth")
    export_merged(checkpoint, tmp_path / "merged")
    base = tmp_path / "base.pth"
    torch.save(golden.detector(), base)
    save_adapter(
        tmp_path / "adapter.safetensors",
        checkpoint.tensors,
        read_checkpoint(base),
        statement=checkpoint.statement,
    )
    for name in ("dfb.pth", "merged", "adapter.safetensors"):
        assert read_checkpoint(tmp_path / name, head_width=golden.HEAD_WIDTH).statement == SAID, name
    config = json.loads((tmp_path / "merged" / room.PREPROCESSOR_CONFIG).read_text())
    assert config["image_mean"] == [0.5, 0.5, 0.5]


def test_a_clip_folders_preprocessor_is_read():
    stated = room.of_preprocessor(
        {
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.4, 0.5, 0.6],
            "size": {"shortest_edge": 224},
            "crop_size": {"height": 224, "width": 224},
            "resample": 3,
        },
        "x",
    )
    assert stated == Statement((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 224, "bicubic")
    assert room.of_preprocessor({"do_normalize": False, "size": 336}, "x").std == (1, 1, 1)
    assert not room.of_preprocessor({}, "x") or room.of_preprocessor({}, "x").mean is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"std": [0, 0, 0]}, "std"),
        ({"std": [float("nan")] * 3}, "std"),
        ({"mean": [123.675, 116.28, 103.53]}, "pixels in 0..255"),
        ({"mean": "abc"}, "mean"),
        ({"mean": [0.5]}, "three numbers"),
        ({"resolution": 10**9}, "resolution"),
        ({"resolution": True}, "resolution"),
        ({"interpolation": 3}, "interpolation"),
        ({"calibration": {"a": object()}}, "calibration"),
        ({"calibration": {"a": "x" * (1 << 21)}}, "at most"),
        ([], "keys with values"),
    ],
)
def test_nonsense_is_refused_with_the_file_named(said, reason, tmp_path):
    with pytest.raises(UserError, match=reason) as caught:
        room.checked(said, "checkpoint x.pth")
    assert "x.pth" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_json_is_bounded():
    for text in ("[" * 100_000, "x", '{"mean": NaN}', " " * (room.MAX_BYTES + 1)):
        with pytest.raises(UserError):
            room.of_text(text, "x.onnx")


def test_the_first_word_counts_and_the_rest_is_filled():
    over = Statement(mean=(0, 0, 0)).over(SAID)
    assert over.mean == (0, 0, 0)
    assert over.std == SAID.std
    assert not Statement()


def test_files_without_a_statement_state_nothing():
    assert of_state(golden.detector(), "x") == Said()
