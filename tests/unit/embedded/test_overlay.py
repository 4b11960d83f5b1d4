"""The overlay in the tree: what it adds to the host's scripts. Whole runs: tests/host/test_one_road.py."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from .conftest import SOURCE


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
