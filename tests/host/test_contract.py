"""What the plugin relies on in a host, and what a host gets from it: the same for embedded and real ones."""

from __future__ import annotations

import ast
import importlib.util
import json

import numpy as np
import pytest
import yaml
from bench_data import SETTINGS
from sklearn.metrics import roc_auc_score
from toyhost import lend_transforms

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
    own = {"torchvision"} if not bench.host.embedded else set()  # what a real host's class imports itself
    for package in own:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the host's dataset class imports {package}, which is not installed here")
    program = (
        "import sys, torch; from effort_finetune.host import open_host; path = list(sys.path)\n"
        "host = open_host(sys.argv[1]); host.dataset_class; host.registry('DETECTOR')\n"
        "import numpy as np; host.get_test_metrics(np.array([.1, .9]), np.array([0, 1]), ['b/1', 'c/1'])\n"
        "names = {'dataset', 'detectors', 'networks', 'trainer', 'timm', 'torchvision'}\n"
        "print([sorted(names & set(sys.modules)), path == sys.path, torch.is_anomaly_enabled()])"
    )
    assert run_in_new_process(program, bench.root).strip() == str([sorted(own), True, False])


def test_the_dataset_class_lists_the_index(bench, monkeypatch):
    lend_transforms(monkeypatch)
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
    assert done.stdout.index("--test_dataset") < done.stdout.index(flags[script][0])


def test_every_python_file_of_the_result_parses(bench):
    for name in ("train.py", "test.py", "metrics/utils.py", "detectors/__init__.py"):
        ast.parse((bench.root / "training" / name).read_bytes())
    settings = yaml.safe_load((bench.root / "training/config/detector/effort_finetune.yaml").read_text())
    assert settings["model_name"] == "effort_finetune"
