"""The plugin's detector in the host's own train.py and test.py, through the overlay in the tree."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import yaml

from .conftest import SOURCE

transformers = pytest.importorskip("transformers", reason="the plugin's detector is CLIP's vision tower")


@pytest.fixture
def tiny_clip(tmp_path):
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    torch.manual_seed(0)
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.fixture
def training():
    return SOURCE


def test_a_run_of_another_detector_does_not_import_ours():
    program = (
        "import sys; from detectors import DETECTOR\n"
        "print(sorted(DETECTOR.data), [name for name in sys.modules if name.startswith(('transformers', "
        "'effort_finetune.model', 'effort_finetune.train'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    assert done.stdout == "['effort_finetune', 'meso4'] []\n", done.stderr


def test_effort_trains_and_tests(bench, tiny_clip, tmp_path, run_script):
    bench.add("DemoA", splits={"train": 6, "val": 4, "test": 4})
    path = SOURCE / "config/detector/effort_finetune.yaml"
    run_dir = tmp_path / "run"
    common = [
        "--detector_path", path, "--resolution", 32, "--head_width", 16, "--workers", 0, "--device", "cpu",
        "--test_dataset", "DemoA", "--bootstrap_samples", 0, *bench.flags,
    ]  # fmt: skip
    train = run_script(
        "train.py", *common, "--train_dataset", "DemoA", "--clip_path", tiny_clip, "--nEpochs", 3,
        "--optimizer.lr", 0.01, "--lr_scheduler", "cosine", "--lr_T_max", 3, "--output_dir", run_dir,
        "--save_to", "null",
    )  # fmt: skip
    assert train.returncode == 0, train.stderr
    best = torch.load(run_dir / "ckpt_best.pth", weights_only=True)
    assert best["backbone.encoder.layers.0.self_attn.q_proj.S_residual"].shape == (1,)

    test = run_script(
        "test.py", *common, "--weights_path", run_dir / "ckpt_best.pth", "--output_json", tmp_path / "m",
        "--output_dir", tmp_path / "measured",
    )  # fmt: skip
    assert test.returncode == 0, test.stderr
    results = json.loads((tmp_path / "m").read_text())
    assert results["settings"]["model_name"] == "effort_finetune"
    assert results["datasets"]["DemoA"]["frame"]["auc"] > 0.9
    assert results["datasets"]["DemoA"]["frame"]["f1"] is not None


def test_a_plugin_error_is_one_line_too(bench, run_script, tmp_path):
    bench.add("DemoA")
    content = yaml.safe_load((SOURCE / "config/detector/effort_finetune.yaml").read_text())
    (tmp_path / "e.yaml").write_text(
        yaml.safe_dump({**content, "residual_rank": -1, "device": "cpu", "workers": 0})
    )
    flags = ["--train_dataset", "DemoA", "--test_dataset", "DemoA", "--output_dir", tmp_path / "run"]
    flags += bench.flags
    result = run_script("train.py", "--detector_path", tmp_path / "e.yaml", *flags)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "residual_rank" in errors[0]
    assert "Traceback" not in result.stderr


def test_the_embedded_host_holds_the_blocks_of_any_host():
    """What is tried here every day is the road that a user's own checkout goes."""
    from effort_finetune.host.marked_blocks import find_blocks, strip
    from effort_finetune.install.patches import insert
    from effort_finetune.install.record import shipped_patches

    for patch in shipped_patches():
        content = (SOURCE.parent / patch.file).read_bytes()
        assert [block.text for block in find_blocks(content)] == [patch.lines]
        assert insert(strip(content), patch) == content
