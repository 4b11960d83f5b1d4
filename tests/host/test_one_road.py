"""One job, whatever command starts it: same files, same bits, and any goes on where another stopped.

On the embedded host always; on a real one where ``DEEPFAKEBENCH_ROOT`` names it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bench_data import SETTINGS

pytestmark = pytest.mark.timeout(600)

YAML = "training/config/detector/effort_finetune.yaml"
#: How each entrance is asked for the same run.
TRAINING = {
    "finetune.py": ("training/finetune.py", "--detector_config", YAML),
    "effort-finetune": ("-m", "effort_finetune", "finetune", "--host", ".", "--detector_config", YAML),
    "train.py": ("training/train.py", "--detector_path", YAML),
}
TESTING = {
    "evaluate_finetune.py": ("training/evaluate_finetune.py", "--detector_config", YAML, "--weights"),
    "effort-finetune": (
        *("-m", "effort_finetune", "evaluate", "--host", ".", "--detector_config", YAML, "--weights"),
    ),
    "test.py": ("training/test.py", "--detector_path", YAML, "--weights_path"),
}
FILES = {
    "results.json",
    "settings.yaml",
    "finetuning.log",
    "scores/UADFV.csv",
    "ckpt_best.pth",
    "ckpt_last.pth",
}
#: Asks the run to stop as a scheduler does, at its sixth step: the second of the second epoch.
STOPPED = """
import os, runpy, signal, sys, torch
step, count = torch.optim.Adam.step, 0
def counted(*arguments, **options):
    global count
    count += 1
    if count == 6:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*arguments, **options)
torch.optim.Adam.step = counted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="session")
def run(bench) -> Callable[..., subprocess.CompletedProcess[str]]:
    def start(entrance: tuple[str, ...], *words: object, fails: bool = False) -> Any:
        done = bench.warm(*entrance, *words, *SETTINGS)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return start


@pytest.fixture(scope="session")
def training_flags(bench) -> tuple[object, ...]:
    return (
        *("--train_dataset", "UADFV", "--test_dataset", "UADFV", "--clip_path", bench.clip),
        *("--nEpochs", 2, "--optimizer.lr", 0.001, "--save_to", "null"),
    )


@pytest.fixture(scope="session")
def runs(bench, run, training_flags, tmp_path_factory) -> dict[str, Path]:
    """The run folder of each entrance."""
    folders = {name: tmp_path_factory.mktemp("run") / name for name in TRAINING}
    for name, entrance in TRAINING.items():
        run(entrance, *training_flags, "--output_dir", folders[name])
    return folders


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def measured(folder: Path) -> dict[str, Any]:
    """Everything that the results say of the datasets, without how long it took."""
    blocks = document(folder)["datasets"].items()
    return {name: {key: value for key, value in block.items() if key != "timings"} for name, block in blocks}


def settings(folder: Path) -> dict[str, Any]:
    read = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in read.items() if key != "output_dir"}


def test_every_entrance_leaves_the_same_files_and_bits(bench, runs):
    first = runs["finetune.py"]
    for name, folder in runs.items():
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert names >= FILES, name
        assert len(names) == len([path for path in first.rglob("*") if path.is_file()]), name
        assert same(tensors(folder / "ckpt_best.pth"), tensors(first / "ckpt_best.pth")), name
        assert (folder / "scores/UADFV.csv").read_bytes() == (first / "scores/UADFV.csv").read_bytes(), name
        assert measured(folder) == measured(first), name
        assert settings(folder) == settings(first), name
        assert document(folder)["host"]["name"] == bench.host.name
        assert document(folder)["status"] == "complete"
    best = tensors(first / "ckpt_best.pth")
    assert best["backbone.encoder.layers.0.self_attn.q_proj.S_residual"].shape == (1,)


def test_a_run_stopped_in_one_is_finished_by_another(run, runs, training_flags, tmp_path):
    folder = tmp_path / "run"
    stopped = ("-c", STOPPED, *TRAINING["train.py"])
    done = run(stopped, *training_flags, "--output_dir", folder, fails=True)
    assert done.returncode == 1
    assert document(folder)["status"] == "failed", done.stderr
    assert document(folder)["reason"].startswith("interrupted; go on with: ")
    resume = (*training_flags, "--output_dir", folder, "--resume", folder)
    run(TRAINING["effort-finetune"], *resume)
    whole = runs["finetune.py"]
    assert same(tensors(folder / "ckpt_best.pth"), tensors(whole / "ckpt_best.pth"))
    assert (folder / "scores/UADFV.csv").read_bytes() == (whole / "scores/UADFV.csv").read_bytes()
    assert measured(folder) == measured(whole)


def test_every_entrance_measures_the_same(bench, run, runs, tmp_path):
    weights = runs["train.py"] / "ckpt_best.pth"
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    for name, entrance in TESTING.items():
        extra = ("--output_json", tmp_path / "test.json") if name == "test.py" else ()
        words = ("--test_dataset", "UADFV", "--output_dir", tmp_path / name, *extra)
        run(entrance, weights, *words)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == before
    first = document(tmp_path / "evaluate_finetune.py")
    block = first["datasets"]["UADFV"]
    for name in TESTING:
        scores = (tmp_path / name / "scores/UADFV.csv").read_bytes()
        assert scores == (runs["train.py"] / "scores/UADFV.csv").read_bytes(), name
        assert measured(tmp_path / name) == measured(tmp_path / "evaluate_finetune.py"), name
    assert json.loads((tmp_path / "test.json").read_text()) == document(tmp_path / "test.py")
    assert {"precision", "recall", "f1"} <= set(block["frame"])
    assert block["frame"]["ci95"]["intervals"]["auc"] is not None
    assert block["counts"]["frames_scored"] == 24
    own = block["host_metrics"]["values"]
    for metric in ("auc", "ap", "acc", "eer"):
        assert own[metric] == pytest.approx(block["frame"][metric], abs=1e-6), metric
    # A fork's metrics may return 0.0 for every video metric without a word.
    assert own["video_auc"] in (0.0, pytest.approx(block["video"]["auc"], abs=1e-6))
