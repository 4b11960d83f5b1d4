"""What inserted lines do in a run of ours, and that they do nothing in any other."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import pytest
import torch
import yaml

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.guest import host_results as run_metrics
from effort_finetune.guest import light_packages as light
from effort_finetune.guest import runs as hooks
from effort_finetune.guest.flags import flag_value, given_settings, set_dotted

OURS = {"model_name": "effort_finetune", "nEpochs": 3, "optimizer": {"type": "adam", "lr": 0.5}}
THEIRS = {"model_name": "meso4", "nEpochs": 3, "optimizer": {"type": "adam", "adam": {"lr": 0.5}}}


@pytest.fixture(autouse=True)
def process_state(monkeypatch):
    """Hooks change the process, as a run of a host's script wants it; a test has to take that back."""
    monkeypatch.setattr(run_metrics, "_taking_part", False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(light, "without_cuda", lambda: None)
    for name in ("dataset", "detectors", "logger"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))
        if sys.modules[name] is None:
            del sys.modules[name]


@pytest.fixture
def script(host_root):
    """Makes a run: ``script("train", OURS, "--nEpochs", "1")`` -> (run, parsed arguments)."""
    (host_root / "training/logger.py").write_text("def create_logger(path):\n    return None\n")

    def make(mode, detector, *words):
        path = host_root / "detector.yaml"
        path.write_text(yaml.safe_dump(detector))
        argv = ["--detector_path", str(path), *words]
        kind = {"train": hooks.TrainRun, "test": hooks.TestRun}[mode]
        run = kind(str(host_root / f"training/{mode}.py"), argv)
        parser = argparse.ArgumentParser()
        parser.add_argument("--detector_path")
        parser.add_argument("--train_dataset", nargs="+")
        parser.add_argument("--test_dataset", nargs="+")
        parser.add_argument("--weights_path", default="/nowhere.pth")
        run.add_flags(parser)
        return run, parser.parse_args(argv)

    return make


def test_a_run_of_another_detector_is_left_alone(script):
    hook = sys.excepthook
    run, args = script("train", THEIRS)
    config = dict(THEIRS)
    run.configure(config, args)
    assert config == THEIRS
    assert not run.owns(config)
    assert not run.is_over({**config, "start_epoch": 0}, 99)
    assert run.trainer(int) is int
    assert sys.excepthook is hook
    assert "detectors" not in sys.modules


def test_its_metrics_stay_the_hosts(script):
    script("train", THEIRS)
    result = {"pred": np.array([0.9, 0.9, 0.1, 0.1]), "label": np.array([1, 0, 1, 0]), "acc": 0.5}
    metrics = run_metrics.with_precision_recall_f1(lambda: dict(result))
    assert metrics().keys() == result.keys()
    run_metrics.take_part()
    assert {name: metrics()[name] for name in ("precision", "recall", "f1")} == {
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
    }


def test_a_ratio_over_nothing_is_left_out():
    run_metrics.take_part()
    metrics = run_metrics.with_precision_recall_f1(lambda: {"pred": np.zeros(2), "label": np.zeros(2)})
    assert not {"precision", "recall", "f1"} & set(metrics())


def test_an_abbreviation_of_another_detectors_run_stays_unambiguous(script):
    _, args = script("train", THEIRS, "--train", "A")
    assert args.train_dataset == ["A"]


def test_our_flags_on_another_detector_are_refused(script):
    run, args = script("train", THEIRS, "--optimizer.lr", "0.1")
    with pytest.raises(UserError, match=r"--optimizer\.lr is for runs of effort_finetune"):
        run.configure(dict(THEIRS), args)


def test_our_settings_come_from_our_resolver(script, host_root):
    run, args = script(
        "train", OURS, "--train_dataset", "A", "B", "--optimizer.lr", "0.25", "--lmdb", "false"
    )
    config = {**OURS, "dataset_json_folder": "preprocessing/dataset_json_v3", "ddp": False, "cudnn": True}
    run.configure(config, args)
    assert run.owns(config)
    assert config["train_dataset"] == ["A", "B"]
    assert config["optimizer"]["adam"]["lr"] == 0.25
    assert config["lmdb"] is False
    folder = host_root / "preprocessing/dataset_json"
    assert run._host.resolve(config["dataset_json_folder"]) == folder, "not what lmdb: true makes of it"
    assert config["cudnn"] is True, "what only the host reads stays as the host merged it"
    assert config["with_mask"] is False
    assert run.settings.nEpochs == 3


def test_nepochs_epochs_run_and_no_more(script):
    run, args = script("train", OURS, "--nEpochs", "2")
    config = dict(OURS)
    run.configure(config, args)
    assert [epoch for epoch in range(4) if not run.is_over(config, epoch)] == [0, 1]


def test_light_packages_hold_our_detector_alone(script, host_root, run_light):
    run, _ = script("train", OURS)
    assert set(sys.modules["detectors"].DETECTOR.data) == {"effort_finetune"}
    assert sys.modules["dataset"].__all__ == ["DeepfakeAbstractBaseDataset"]
    assert hasattr(sys.modules["logger"], "RankFilter")
    assert run.trainer(int) is not int


@pytest.fixture
def run_light(host_root):
    """Other dataset classes that a script imports by name can be imported, and not be made."""
    test = host_root / "training/train.py"
    test.write_bytes(b"from dataset.ff_blend import FFBlendDataset\r\n" + test.read_bytes())
    yield
    with pytest.raises(UserError, match="FFBlendDataset cannot be used"):
        sys.modules["dataset.ff_blend"].FFBlendDataset({})
    del sys.modules["dataset.ff_blend"]


def test_the_trainer_can_be_swapped_both_ways(script, host_root):
    own, _ = script("train", OURS, "--trainer", "null")
    assert own.trainer(int) is int
    theirs, args = script("train", THEIRS, "--trainer", "effort_finetune", "--optimizer.lr", "0.125")
    assert theirs.trainer(int) is not int
    config = {**THEIRS, "optimizer": {"type": "adam", "adam": {"lr": 0.5}}}
    torch.autograd.set_detect_anomaly(True)
    theirs.configure(config, args)
    assert not torch.is_anomaly_enabled()
    assert config["optimizer"]["adam"]["lr"] == 0.125
    assert config["trainer"] == "effort_finetune"
    unknown, _ = script("train", THEIRS, "--trainer", "nobodys")
    with pytest.raises(UserError, match="nobodys"):
        unknown.trainer(int)()


def test_select_on_last_is_refused_in_train_py(script):
    run, args = script("train", OURS, "--select_on", "last")
    with pytest.raises(UserError, match="select_on"):
        run.configure(dict(OURS), args)


def test_a_resumed_run_is_built_from_its_own_state(script, tmp_path):
    """What it began with may be gone, and without a checkpoint plain CLIP would be looked for."""
    run, args = script("train", OURS, "--resume", str(tmp_path), "--pretrained_weights", "gone.pth")
    with pytest.raises(UserError, match=r"--resume; got .*ckpt_last\.pth, which does not exist"):
        run.configure(dict(OURS), args)
    (tmp_path / "ckpt_last.pth").write_bytes(b"")
    config = dict(OURS)
    run.configure(config, args)
    assert config["pretrained_weights"] == str(tmp_path / "ckpt_last.pth")


@pytest.mark.parametrize("detector", [OURS, THEIRS])
def test_help_needs_no_package_of_the_hosts(script, capsys, detector):
    with pytest.raises(SystemExit):
        script("train", detector, "--help")
    assert set(sys.modules["detectors"].DETECTOR.data) == {"effort_finetune"}
    assert "--pretrained_weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"),
    [("resume", "x"), ("output_dir", "x"), ("accumulation_steps", "2"), ("early_stopping.patience", "1")],
)
def test_what_the_hosts_own_trainer_would_not_heed_is_refused(script, key, value):
    run, args = script("train", OURS, "--trainer", "null", f"--{key}", value)
    with pytest.raises(UserError, match=rf"{key.split('.')[0]}; got .*host's own trainer"):
        run.configure(dict(OURS), args)


def test_output_json_of_any_detector(script, tmp_path):
    output = tmp_path / "out.json"
    run, args = script("test", THEIRS, "--output_json", str(output))
    run.configure(dict(THEIRS), args)
    scores = {
        "auc": np.float64(0.75),
        "eer": float("nan"),
        "pred": np.zeros(4),
        "label": np.array([0, 1, 2, 0]),
    }
    run.write_json({"A": scores, "B": {**scores, "auc": 0.25}})
    document = json.loads(output.read_text())
    assert document["datasets"]["A"] == {
        "auc": 0.75,
        "eer": None,
        "frames": 4,
        "frames_real": 2,
        "frames_fake": 2,
    }
    assert document["avg"] == {"auc": 0.5}
    assert document["weights_path"] is None
    assert document["model_name"] == "meso4"


def test_output_json_of_our_detector_names_a_folder_of_weights(script, tmp_path):
    folder, output = tmp_path / "merged", tmp_path / "out.json"
    folder.mkdir()
    run, args = script("test", OURS, "--weights_path", str(folder), "--output_json", str(output))
    run.configure(dict(OURS), args)
    report = argparse.Namespace(to_dict=lambda: {"layout": "merged", "sha256": "5a"})
    run.test(argparse.Namespace(load_report=report), {}, lambda *_: {"A": {"auc": 0.5}})
    document = json.loads(output.read_text())
    assert (document["weights_path"], document["weights_sha256"]) == (str(folder), "5a")


def test_test_py_measures_as_the_host_does_and_says_so(script):
    """The host's loop knows no precision and no threshold of ours; nor does it claim one."""
    for key, value in (("threshold", "0.25"), ("precision", "bf16")):
        run, args = script("test", OURS, f"--{key}", value)
        with pytest.raises(UserError, match=f"--{key}; got .*evaluate_finetune"):
            run.configure(dict(OURS), args)
    run, args = script("test", {**OURS, "threshold": 0.25, "precision": "bf16"}, "--precision", "float32")
    run.configure(dict(OURS), args)
    assert (run.settings.threshold, run.settings.precision) == (0.5, "float32")


def test_without_output_json_nothing_is_written(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, args = script("test", THEIRS)
    run.configure(dict(THEIRS), args)
    run.write_json({"A": {"auc": 0.5}})
    assert list(tmp_path.glob("*.json")) == []


def test_user_errors_of_our_runs_end_in_one_line_and_their_exit_code(script, capsys, monkeypatch):
    codes = []
    monkeypatch.setattr(hooks.os, "_exit", codes.append)
    script("train", OURS)
    for error in (UserError("wrong", got=1), RunFailure("failed")):
        sys.excepthook(type(error), error, None)
    assert codes == [2, 1]
    assert capsys.readouterr().err == "error: wrong; got 1\nerror: failed\n"
    sys.excepthook(ValueError, ValueError("a bug"), None)
    assert len(codes) == 2, "other exceptions keep their traceback"


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], None),
        (["--trainer", "x"], "x"),
        (["--trainer=x"], "x"),
        (["--trainer"], ""),
        (["--train", "x"], None),
    ],
)
def test_flag_value(argv, value):
    assert flag_value(argv, "trainer") == value


def test_given_settings_are_typed():
    args = argparse.Namespace(
        **{
            "effort_finetune:nEpochs": "3",
            "effort_finetune:mean": ["0.5", "0.5", "0.25"],
            "effort_finetune:lr": "0.001",
            "effort_finetune:resume": None,
        }
    )
    assert given_settings(args) == {"nEpochs": 3, "mean": [0.5, 0.5, 0.25], "optimizer.lr": 0.001}


def test_set_dotted_reaches_upstreams_optimiser():
    config = {"optimizer": {"type": "sgd", "sgd": {"lr": 1.0}}}
    set_dotted(config, {"optimizer.lr": 0.5, "data_aug.flip_prob": 0.1, "nEpochs": 2})
    assert config == {
        "optimizer": {"type": "sgd", "sgd": {"lr": 0.5}},
        "data_aug": {"flip_prob": 0.1},
        "nEpochs": 2,
    }


def test_a_real_and_a_fake_video_of_one_name_are_named_as_the_cause(script):
    run, _ = script("test", OURS)
    model = argparse.Namespace(load_report=argparse.Namespace(to_dict=lambda: {"layout": "x", "sha256": "y"}))

    def upstream(model, loaders):
        raise ValueError("All-NaN slice encountered")

    with pytest.raises(RunFailure, match="share a folder's name.*evaluate_finetune"):
        run.test(model, {}, upstream)
