"""train.py and test.py as a user runs them on the bench's own detector, and the swap of the trainer."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.usefixtures("configured")
def test_mesonet_trains_and_tests(bench, detector_yaml, run_script):
    bench.add("DemoA", splits={"train": 8, "val": 4, "test": 4}, frames=4)
    bench.add("DemoB")
    optimizer = {
        "type": "adam",
        "adam": {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False},
    }
    path = detector_yaml(nEpochs=6, optimizer=optimizer, workers=1)
    datasets = ("--train_dataset", "DemoA", "--test_dataset", "DemoA", "DemoB")
    train = run_script("train.py", "--detector_path", path, *datasets, "--task_target", "try")
    assert train.returncode == 0, train.stderr
    (folder,) = (bench.root / "logs").iterdir()
    assert folder.name.startswith("meso4_try_")
    assert list((folder / "train").glob("events.out.tfevents*"))
    assert list((folder / "test" / "DemoB").glob("events.out.tfevents*"))
    assert "best on DemoA" in (folder / "training.log").read_text()
    best = folder / "test" / "avg" / "ckpt_best.pth"
    test = run_script("test.py", "--detector_path", path, "--test_dataset", "DemoA", "--weights_path", best)
    assert test.returncode == 0, test.stderr
    printed = dict(line.split(": ", 1) for line in test.stdout.splitlines())
    assert float(printed["video_auc"]) > 0.9
    assert {"precision", "recall", "f1"} <= set(printed)


@pytest.mark.usefixtures("configured")
def test_a_user_error_is_one_line_and_exit_code_2(bench, run_script, detector_yaml):
    bench.add("DemoA")
    for arguments, words in (
        (("--train_dataset", "DemoX"), "dataset 'DemoX' has no index"),
        (("--train_dataset", "DemoA", "--test_dataset", "DemoA", "--ddp"), "ddp is true"),
    ):
        result = run_script("train.py", "--detector_path", detector_yaml(), *arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert words in result.stderr


@pytest.mark.usefixtures("configured")
def test_its_detector_is_trained_by_our_trainer(bench, run_script, detector_yaml):
    bench.add("DemoA", splits={"train": 8, "test": 4})
    path = detector_yaml(trainer="effort_finetune")
    datasets = ("--train_dataset", "DemoA", "--test_dataset", "DemoA", "--nEpochs", 2)
    done = run_script("train.py", "--detector_path", path, *datasets)
    assert done.returncode == 0, done.stderr
    (folder,) = (bench.root / "logs").iterdir()
    assert {"ckpt_best.pth", "ckpt_last.pth"} <= {path.name for path in folder.iterdir()}
    assert "backbone.head.1.weight" in torch.load(folder / "ckpt_best.pth", weights_only=True)
    refused = run_script("train.py", "--detector_path", path, *datasets, "--lmdb_dir", "elsewhere")
    assert refused.returncode == 2
    assert "--lmdb_dir; got elsewhere" in refused.stderr
    assert "train_config.yaml" in refused.stderr
