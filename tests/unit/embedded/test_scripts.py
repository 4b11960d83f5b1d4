"""train.py and test.py as a user runs them."""

from __future__ import annotations

import json

import pytest
import torch


def test_mesonet_trains_and_tests(bench, detector_yaml, run_script):
    bench.add("DemoA", splits={"train": 8, "val": 4, "test": 4}, frames=4)
    bench.add("DemoB")
    yaml_path = detector_yaml()
    run_dir = bench.root / "run"
    train = run_script(
        "train.py", "--detector_path", yaml_path, "--train_dataset", "DemoA", "--test_dataset", "DemoA", "DemoB",
        "--nEpochs", 6, "--optimizer.lr", 0.01, "--output_dir", run_dir,
    )  # fmt: skip
    assert train.returncode == 0, train.stderr
    assert (run_dir / "ckpt_last.pth").is_file()
    assert list((run_dir / "train").glob("events.out.tfevents*"))
    assert list((run_dir / "test" / "DemoB").glob("events.out.tfevents*"))
    assert "best on DemoA" in (run_dir / "training.log").read_text()

    output = bench.root / "metrics.json"
    test = run_script(
        "test.py", "--detector_path", yaml_path, "--test_dataset", "DemoA", "DemoB",
        "--weights_path", run_dir / "ckpt_best.pth", "--output_json", output,
    )  # fmt: skip
    assert test.returncode == 0, test.stderr
    results = json.loads(output.read_text())
    assert results["datasets"]["DemoA"]["frames"] == 32
    assert results["datasets"]["DemoA"]["videos"] == 8
    assert results["datasets"]["DemoA"]["video_auc"] > 0.9
    assert "DemoB" in test.stdout
