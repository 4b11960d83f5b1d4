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
        "train.py", "--detector_path", yaml_path, "--train_dataset", "DemoA",
        "--test_dataset", "DemoA", "DemoB", "--nEpochs", 6, "--optimizer.lr", 0.01,
        "--workers", 1, "--output_dir", run_dir,
    )  # fmt: skip
    assert train.returncode == 0, train.stderr
    assert list((run_dir / "train").glob("events.out.tfevents*"))
    assert list((run_dir / "test" / "DemoB").glob("events.out.tfevents*"))
    log = (run_dir / "training.log").read_text()
    assert "best on DemoA" in log
    assert "auc on the val split" in log
    # As many epochs as asked for.
    assert torch.load(run_dir / "ckpt_last.pth", weights_only=True)["epoch"] == 5

    output = bench.root / "metrics.json"
    test = run_script(
        "test.py", "--detector_path", yaml_path, "--test_dataset", "DemoA", "DemoB",
        "--weights_path", run_dir / "ckpt_best.pth", "--output_json", output,
    )  # fmt: skip
    assert test.returncode == 0, test.stderr
    results = json.loads(output.read_text())
    demo_a = results["datasets"]["DemoA"]
    assert (demo_a["frames"], demo_a["videos"]) == (32, 8)
    assert demo_a["video_auc"] > 0.9
    assert f"{demo_a['video_auc']:.4f}" in test.stdout
    assert f"best on DemoA: acc {demo_a['acc']:.4f}" in log


def test_a_user_error_is_one_line_and_exit_code_2(run_script, detector_yaml):
    result = run_script("train.py", "--detector_path", detector_yaml(), "--train_dataset", "DemoX")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: dataset 'DemoX'")


@pytest.fixture
def train(bench, detector_yaml, run_inside):
    bench.add("DemoA")

    def train(*words, **changes):
        flags = ["--train_dataset", "DemoA", "--test_dataset", "DemoA", "--output_dir", bench.root / "run"]
        return run_inside("train", "--detector_path", detector_yaml(**changes), *flags, *words)

    return train


def test_train_in_this_process(train, bench):
    code, _ = train("--no-save_ckpt", "--task_target", "x")
    assert code == 0
    assert not list(bench.root.rglob("*.pth"))


def test_run_folder_is_named_by_model_target_and_time(bench, detector_yaml, run_inside):
    bench.add("DemoA")
    flags = ["--train_dataset", "DemoA", "--test_dataset", "DemoA", "--task_target", "try"]
    assert run_inside("train", "--detector_path", detector_yaml(), *flags)[0] == 0
    (folder,) = (bench.root / "logs").iterdir()
    assert folder.name.startswith("meso4_try_")
    assert (folder / "ckpt_last.pth").is_file()


def test_dry_run_trains_nothing(train, bench):
    assert train("--dry_run", "true")[0] == 0
    assert not list(bench.root.rglob("*.pth"))
    assert "everything could be built" in (bench.root / "run" / "training.log").read_text()


def test_pretrained_weights_are_where_training_starts(train, bench):
    assert train()[0] == 0
    first = bench.root / "first.pth"
    (bench.root / "run" / "ckpt_best.pth").rename(first)
    assert train("--pretrained_weights", first, "--nEpochs", "1", "--optimizer.lr", "0.0")[0] == 0
    start, end = (
        torch.load(path, weights_only=True) for path in (first, bench.root / "run" / "ckpt_best.pth")
    )
    name = "backbone.head.1.weight"
    assert torch.equal(start[name], end[name])


def test_resume_goes_on_where_it_stopped(train, bench):
    assert train("--nEpochs", "1")[0] == 0
    last = bench.root / "run" / "ckpt_last.pth"
    assert train("--nEpochs", "3", "--resume", last)[0] == 0
    log = (bench.root / "run" / "training.log").read_text()
    assert "after epoch 0" in log
    assert torch.load(last, weights_only=True)["epoch"] == 2


def test_no_val_split(bench, train):
    bench.add("DemoA", splits={"train": 2, "test": 2})
    assert train()[0] == 0
    assert "auc on the test sets" in (bench.root / "run" / "training.log").read_text()


def test_a_trainer_of_the_models_name_is_used(training, detector_yaml, bench, run_inside):
    from metrics.registry import TRAINER

    bench.add("DemoA")
    epochs = []

    class Other:
        def __init__(self, config, model, optimizer, scheduler, logger, metric_scoring, time_now):
            self.writers = {}
            self.start_epoch = 1

        def train_epoch(self, epoch, train_data_loader, test_data_loaders):
            epochs.append((epoch, len(train_data_loader.dataset), list(test_data_loaders)))
            return {}

    TRAINER.register_module(module_name="meso4")(Other)
    flags = ["--train_dataset", "DemoA", "--test_dataset", "DemoA", "--nEpochs", "3"]
    assert run_inside("train", "--detector_path", detector_yaml(), *flags)[0] == 0
    assert epochs == [(1, 18, ["DemoA"]), (2, 18, ["DemoA"])]
    # A `trainer` setting overrides the name: null is the bench's own.
    assert run_inside("train", "--detector_path", detector_yaml(trainer=None), *flags)[0] == 0
    assert len(epochs) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train_dataset", "DemoX"], "dataset 'DemoX' has no index"),
        (["--test_dataset", "DemoX"], "did you mean 'DemoA'"),
        (["--nEpoch", "3"], "did you mean --nEpochs"),
        (["--optimizer.type", "adm"], "optimizer.type is 'adm'"),
        (["--lr_scheduler", "cos"], "lr_scheduler is 'cos'"),
        (["--metric_scoring", "f1"], "metric_scoring is 'f1'"),
        (["--pretrained_weights", "none.pth"], "weights file"),
        (["--resume", "none.pth"], "not found"),
        (["--device", "cuda:99"], "device is 'cuda:99'"),
        (["--model_name", "meso5"], "did you mean 'meso4'"),
        (["--ddp"], "--ddp needs torchrun"),
        (["--SWA", "true"], "--SWA is not a setting"),
    ],
)
def test_user_errors_of_training(train, monkeypatch, words, message):
    monkeypatch.delenv("RANK", raising=False)
    code, error = train(*words)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_an_output_folder_that_cannot_be_made(train, bench):
    (bench.root / "run").write_text("a file")
    code, error = train()
    assert code == 2
    assert "cannot be written" in error


class TestTesting:
    @pytest.fixture
    def weights(self, detector_yaml, tmp_path):
        import yaml
        from detectors import DETECTOR

        path = tmp_path / "meso4.pth"
        torch.save(DETECTOR["meso4"](yaml.safe_load(detector_yaml().read_text())).state_dict(), path)
        return path

    @pytest.fixture
    def test(self, bench, detector_yaml, weights, run_inside):
        bench.add("DemoA")

        def test(*words, weights=weights):
            flags = ["--detector_path", detector_yaml(), "--weights_path", weights]
            return run_inside("test", *flags, "--test_dataset", "DemoA", *words)

        return test

    def test_one_class_is_null_in_the_json(self, bench, test):
        bench.add("DemoB", groups={"DemoB_Fake": "DemoB_Fake"})
        output = bench.root / "new" / "m.json"
        assert test("--test_dataset", "DemoA", "DemoB", "--output_json", output) == (0, "")
        datasets = json.loads(output.read_text())["datasets"]
        assert datasets["DemoB"]["auc"] is None
        assert datasets["DemoB"]["acc"] is not None
        assert datasets["DemoA"]["auc"] is not None

    def test_a_missing_frame_ends_the_run_and_is_named(self, bench, test):
        bench.delete("DemoA", r"DemoA\DemoA_Fake\frames\test00\1.png")
        code, error = test()
        assert code == 1
        assert r"frame 'DemoA\DemoA_Fake\frames\test00\1.png' is not in" in error
        assert error.count("\n") == 1

    def test_user_errors(self, test, tmp_path):
        (tmp_path / "text.pth").write_text("no checkpoint")
        for words, message in [
            (["--test_dataset", "DemoX"], "dataset 'DemoX' has no index"),
            (["--test_batchSize", "0"], "test_batchSize is 0"),
            (["--output_json", tmp_path / "text.pth" / "m.json"], "cannot be written"),
        ]:
            code, error = test(*words)
            assert code == 2
            assert message in error
        code, error = test(weights=tmp_path / "none.pth")
        assert (code, "not found" in error) == (2, True)
        code, error = test(weights=tmp_path / "text.pth")
        assert (code, "is not a checkpoint" in error) == (2, True)
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
        code, error = test(weights=tmp_path / "other.pth")
        assert (code, "does not fit Meso4Detector" in error) == (2, True)
