"""The guide's commands in processes of their own, on a host with a toy dataset and a toy tower."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toyhost import EMBEDDED, IN_HOST, link_host, list_videos, noise, save_clip, write_dataset

from effort_finetune.cli.main import main
from effort_finetune.evaluate import results as results_file

SCRIPTS = EMBEDDED / "training"
YAML = SCRIPTS / "config" / "detector" / "effort_finetune.yaml"


def _write_dataset(host: Path, name: str, splits: tuple[str, ...]) -> None:
    labels = {f"{name}_Real": 0, f"{name}_Fake": 1}
    videos = list_videos(name, labels, dict.fromkeys(splits, 2))
    write_dataset(host, name, videos, noise(labels, 64), layout=IN_HOST)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded host's code with data, tower and logs of its own."""
    root = link_host(tmp_path_factory.mktemp("host"))
    _write_dataset(root, "UADFV", ("train", "val", "test"))
    _write_dataset(root, "roop", ("train", "test"))
    clip = root / "training" / "pretrained" / "demo_clip"
    clip.mkdir(parents=True)
    save_clip(
        clip, hidden_size=64, intermediate_size=64, num_attention_heads=1, image_size=224, patch_size=56
    )
    return root


def environment(host: Path) -> dict[str, str]:
    return {**os.environ, "DEEPFAKEBENCH_ROOT": str(host), "OMP_NUM_THREADS": "1"}


def script(
    name: str, *arguments: str, host: Path, cwd: Path, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    command = [python, str(host / "training" / name), "--detector_config", str(YAML), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(host), capture_output=True, text=True, check=False
    )


def test_workflow_1_fine_tune_then_evaluate(host, tmp_path, warm):
    """The guide's first workflow, files where it says they are."""
    done = script(
        *("finetune.py", "--train_dataset", "UADFV", "--test_dataset", "UADFV", "--nEpochs", "2"),
        *("--train_batchSize", "4", "--workers", "1"),
        host=host,
        cwd=tmp_path,
        python=f"{warm}/python",
    )
    assert done.returncode == 0, done.stderr
    published = tmp_path / "finetuned" / "effort_uadfv.pth"
    assert done.stdout.strip().splitlines()[-1] == str(published)
    assert (host / "training" / "logs" / "finetuning.log").is_file()
    assert "\r" not in done.stderr, "no progress bar without a terminal"
    (folder,) = (host / "training" / "logs").glob("effort_finetune_uadfv_*")
    document = results_file.read(folder / "results.json")
    assert document["settings"]["train_batchSize"] == 4

    again = script(
        *("evaluate_finetune.py", "--weights", "finetuned/effort_uadfv.pth"),
        *("--test_dataset", "UADFV", "roop", "--output_dir", "evaluation_results"),
        host=host,
        cwd=tmp_path,
        python=f"{warm}/python",
    )
    assert again.returncode == 0, again.stderr
    evaluation = results_file.read(tmp_path / "evaluation_results" / "results.json")
    for level in ("frame", "video"):
        for metric in ("auc", "eer", "acc", "ap", "precision", "recall", "f1"):
            before = document["datasets"]["UADFV"][level][metric]
            assert evaluation["datasets"]["UADFV"][level][metric] == pytest.approx(before, abs=1e-9), metric


def test_workflow_2_head_then_everything(host, tmp_path, warm):
    """Stage 1 begins at plain CLIP and has no test set; stage 2 begins at its checkpoint."""
    stage_1 = script(
        *("finetune.py", "--train_dataset", "UADFV", "--nEpochs", "1", "--optimizer.lr", "0.001"),
        *(
            "--tune_mode",
            "head",
            "--workers",
            "0",
            "--output_dir",
            "one",
            "--save_to",
            "stage1_checkpoint.pth",
        ),
        host=host,
        cwd=tmp_path,
        python=f"{warm}/python",
    )
    assert stage_1.returncode == 0, stage_1.stderr
    first = results_file.read(tmp_path / "one")
    assert first["datasets"] == {}
    assert first["settings"]["optimizer"]["lr"] == 0.001
    assert set(first["training"]["trainable"]["by_group"]) == {"head"}

    stage_2 = script(
        *("finetune.py", "--train_dataset", "UADFV", "--nEpochs", "1", "--workers", "0"),
        *("--pretrained_weights", "stage1_checkpoint.pth", "--output_dir", "two"),
        host=host,
        cwd=tmp_path,
        python=f"{warm}/python",
    )
    assert stage_2.returncode == 0, stage_2.stderr
    second = results_file.read(tmp_path / "two")
    assert second["training"]["start_weights"]["sha256"] == first["checkpoint"]["sha256"]
    assert set(second["training"]["trainable"]["by_group"]) == {"residual", "head"}


def test_ctrl_c_saves_and_the_printed_command_goes_on(host, tmp_path, warm):
    command = [
        *(sys.executable, str(host / "training" / "finetune.py"), "--detector_config", str(YAML)),
        *("--train_dataset", "UADFV", "--nEpochs", "40", "--rec_iter", "1", "--train_batchSize", "2"),
        *("--workers", "2", "--output_dir", "run", "--save_to", "null", "--lr_scheduler", "cosine"),
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(host),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = tmp_path / "run" / "finetuning.log"
    while process.poll() is None and not (log.is_file() and "epoch 0, batch 2" in log.read_text()):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the loader's workers get it too
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "failed"
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in errors
    words = shlex.split(line.partition("go on with: ")[2])
    assert words[0] == "python"
    assert words[-2] == "--resume"

    saved = torch.load(tmp_path / "run" / "ckpt_last.pth", weights_only=True)
    shorter = [f"{warm}/python", *words[1:], "--nEpochs", str(saved["epoch"] + 1)]
    done = subprocess.run(
        shorter, cwd=tmp_path, env=environment(host), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document = results_file.read(tmp_path / "run")
    assert document["training"]["epochs"]["done"] == saved["epoch"] + 1
    assert document["training"]["history"][-1]["train"]["samples"] == 12, "no frame twice, none left out"


@pytest.fixture
def in_process(host, tmp_path, monkeypatch, capsys):
    """Runs the command in this process and returns its exit code and what it printed as errors."""
    monkeypatch.setenv("DEEPFAKEBENCH_ROOT", str(host))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, list[str]]:
        code = main(["finetune", "--workers", "0", *arguments])
        return code, [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--train_dataset", "UADF"), ("UADF", "UADFV")),
        (("--train_dataset", "roop"), ("val", "--select_on last")),
        (("--train_dataset", "UADFV", "--pretrained_weights", "none.pth"), ("none.pth",)),
        (("--train_dataset", "UADFV", "--pretrained_weights", "text.pth"), ("text.pth",)),
        (("--train_dataset", "UADFV", "--output_dir", "text.pth/out"), ("output folder", "--output_dir")),
        (("--train_dataset", "UADFV", "--resume", "none"), ("--resume", "ckpt_last.pth")),
        (("--train_dataset", "UADFV", "--optimizer.lrr", "1"), ("--optimizer.lrr", "--optimizer.lr")),
        (("--train_dataset", "UADFV", "--optimizer.lr", "fast"), ("optimizer.lr", "fast")),
        (("--train_dataset", "UADFV", "--device", "cuda:77"), ("device", "cuda:77")),
        (("--train_dataset", "UADFV", "--lmdb_dir", "nowhere"), ("nowhere",)),
        (("--train_dataset", "UADFV", "--dataset_json_folder", "nowhere"), ("nowhere",)),
    ],
)
def test_user_errors_are_one_line_and_exit_2(in_process, tmp_path, arguments, words):
    (tmp_path / "text.pth").write_text("no checkpoint")
    code, errors = in_process(*arguments)
    assert code == 2
    assert len(errors) == 1, errors
    for word in words:
        assert word in errors[0]
    assert not (tmp_path / "finetuned" / "effort_uadfv.pth").exists()


def test_a_failed_run_exits_1(in_process, tmp_path):
    code, errors = in_process(
        *("--train_dataset", "UADFV", "--output_dir", "run", "--optimizer.type", "sgd"),
        *("--optimizer.lr", "1e35", "--precision", "float32", "--train_batchSize", "2"),
    )
    assert code == 1
    assert len(errors) == 1
    assert "not finite" in errors[0]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "failed"
