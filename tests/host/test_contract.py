"""What the plugin relies on in a host, and what a host gets from it: the same for embedded and real ones."""

from __future__ import annotations

import ast
import json

import numpy as np
import pytest
import torch
import yaml
from bench_data import SETTINGS
from sklearn.metrics import roc_auc_score

from effort_finetune.cli.main import main
from effort_finetune.guest.registry import DetectorFactory, TrainerFactory, register_plugin

OURS = ("--detector_path", "training/config/detector/effort_finetune.yaml")


def test_kind_and_defaults(bench):
    host = bench.host
    assert host.name
    for mode in ("train", "test"):
        defaults = host.default_settings(mode)
        assert defaults["label_dict"]["UADFV_Real"] == 0
        assert "lmdb" in defaults


def test_registries(bench):
    host = bench.host
    for name in ("BACKBONE", "DETECTOR", "TRAINER", "LOSSFUNC"):
        registry = host.registry(name)
        assert isinstance(registry.data, dict)
        assert callable(
            registry.register_module(module_name=None) if name == "none" else registry.register_module
        )
    register_plugin(host)
    register_plugin(host)
    assert isinstance(host.registry("DETECTOR")["effort_finetune"], DetectorFactory)
    assert isinstance(host.registry("TRAINER")["effort_finetune"], TrainerFactory)


def test_the_metric_function_is_the_hosts_and_leaves_its_arguments_alone(bench):
    generator = np.random.default_rng(0)
    label, prob = np.repeat([0, 1, 2], [6, 4, 2]), generator.random(12)
    names = [
        f"UADFV\\x\\frames\\{'real' if value == 0 else 'fake'}{i // 2}\\{i}.png"
        for i, value in enumerate(label)
    ]
    kept = label.copy()
    result = bench.host.get_test_metrics(prob, np.minimum(label, 1), names)
    assert result["auc"] == pytest.approx(roc_auc_score(label > 0, prob))
    assert {"acc", "auc", "eer", "ap", "video_auc", "pred", "label"} <= set(result)
    np.testing.assert_array_equal(label, kept)


def test_opening_a_host_runs_no_package_init_and_leaves_the_process_as_it_was(bench, run_in_new_process):
    program = (
        "import sys, torch; from effort_finetune.host import open_host; path = list(sys.path)\n"
        "host = open_host(sys.argv[1]); host.dataset_class; host.registry('DETECTOR')\n"
        "import numpy as np; host.get_test_metrics(np.array([.1, .9]), np.array([0, 1]), ['b/1', 'c/1'])\n"
        "names = {'dataset', 'detectors', 'networks', 'trainer', 'imgaug', 'timm', 'torchvision'}\n"
        "print([names & set(sys.modules), path == sys.path, torch.is_anomaly_enabled()])"
    )
    assert run_in_new_process(program, bench.root).strip() == "[set(), True, False]"


def test_the_dataset_class_lists_the_index(bench):
    host = bench.host
    config = {
        **host.default_settings("test"),
        "label_dict": {"UADFV_Real": 0, "UADFV_Fake": 1},
        "dataset_json_folder": str(bench.root / "preprocessing/dataset_json"),
    }
    dataset = host.dataset_class.__new__(host.dataset_class)
    dataset.config, dataset.mode = config, "test"
    dataset.compression, dataset.frame_num, dataset.video_level, dataset.clip_size = "c23", 4, False, None
    frames, labels, names = dataset.collect_img_and_label_for_one_dataset("UADFV")[:3]
    assert (len(frames), len(labels), len(names)) == (24, 24, 24)
    assert sorted(set(labels)) == [0, 1]


def test_status_and_a_second_install(bench, capsys):
    assert main(["status", str(bench.root), "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["installed"]
    assert set(state["files"].values()) <= {"ok"}
    assert main(["install", str(bench.root)]) == 0
    assert "nothing" in capsys.readouterr().out


@pytest.mark.timeout(600)
def test_train_py_trains_through_our_trainer(bench, trained):
    assert {"ckpt_best.pth", "ckpt_last.pth"} <= {path.name for path in trained.iterdir()}
    state = torch.load(trained / "ckpt_best.pth", weights_only=True)
    assert state["backbone.encoder.layers.0.self_attn.q_proj.S_residual"].shape == (1,)
    assert list(trained.glob("test/UADFV/events.out.tfevents*"))


@pytest.mark.timeout(600)
def test_test_py_and_evaluate_finetune_agree(bench, trained, tmp_path):
    common = ("--test_dataset", "UADFV", *SETTINGS)
    weights = trained / "ckpt_best.pth"
    output = tmp_path / "test.json"
    done = bench.script("test.py", *OURS, "--weights_path", weights, "--output_json", output, *common)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = json.loads(output.read_text())["datasets"]["UADFV"]
    assert tested["frames"] == 24
    done = bench.script("evaluate_finetune.py", "--weights", weights, "--output_dir", tmp_path / "e", *common)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "e" / "results.json").read_text())
    assert results["host"]["name"] == bench.host.name
    evaluated = results["datasets"]["UADFV"]
    for name in ("auc", "ap", "acc"):
        assert tested[name] == pytest.approx(evaluated["frame"][name], abs=1e-6), name
    for name in ("auc", "ap", "acc", "eer", "video_auc"):
        assert tested[name] == pytest.approx(evaluated["host_metrics"]["values"][name], abs=1e-6), name
    assert tested["video_auc"] == pytest.approx(evaluated["video"]["auc"], abs=1e-6)


@pytest.mark.timeout(600)
def test_finetune_py_goes_on_from_the_checkpoint(bench, trained, tmp_path):
    done = bench.script(
        "finetune.py",
        *("--train_dataset", "UADFV", "--test_dataset", "UADFV", "--nEpochs", 1),
        *("--pretrained_weights", trained / "ckpt_best.pth", "--output_dir", tmp_path / "f"),
        *("--save_to", tmp_path / "published.pth", *SETTINGS),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "published.pth").is_file()
    results = json.loads((tmp_path / "f" / "results.json").read_text())
    assert results["status"] == "complete"
    assert results["host"]["name"] == bench.host.name


@pytest.mark.timeout(300)
def test_a_user_error_in_train_py_is_one_line(bench):
    done = bench.script("train.py", *OURS, "--train_dataset", "UADVF", "--test_dataset", "UADFV", *SETTINGS)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "UADFV" in done.stderr.strip().splitlines()[-1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("script", ["train.py", "test.py"])
def test_help_names_our_flags(bench, script):
    done = bench.script(script, *OURS, "--help")
    assert done.returncode == 0, done.stderr
    flags = {"train.py": ("--pretrained_weights", "--resume", "--output_dir"), "test.py": ("--output_json",)}
    assert all(flag in done.stdout for flag in flags[script])


def test_every_python_file_of_the_result_parses(bench):
    for name in ("train.py", "test.py", "metrics/utils.py", "detectors/__init__.py"):
        ast.parse((bench.root / "training" / name).read_bytes())
    settings = yaml.safe_load((bench.root / "training/config/detector/effort_finetune.yaml").read_text())
    assert settings["model_name"] == "effort_finetune"
