"""What a command can refuse without torch it refuses without torch, in one line and with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest
import toyhost
from toyhost import IN_HOST, link_host, list_videos, noise

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.core.torch_build import builds_for_gpu, refuse_absent_device

WRONG = {
    "predict F --weights W --faces nosuch": "--faces",
    "predict F --weights W --device nosuch": "device; got 'nosuch'",
    "predict F --weights W --precision fp16 --device cpu": "precision; got 'fp16'",
    "predict F --weights W --predictor nosuch": "--predictor; got nosuch",
    "predict F --weights W --threshold 7": "--threshold; got 7",
    "predict F --weights W --jsonl F/x": "folder of --jsonl",
    "predict F --weights W --csv F/x": "folder of --csv",
    "predict F --weights W --evidence F/x": "folder of --evidence",
    "predict F --weights W --heatmap F/x": "folder of --heatmap",
    "inspect nosuch": "no such file",
    "inspect C": "truncated or damaged",
    "finetune --host H --pretrained_weights C --train_dataset UADFV": "truncated or damaged",
    "evaluate --host H --weights W --model_name meso4 --test_dataset UADFV --residual_rank 3": "residual_",
    "check-data --host H --test_dataset UADVF": "did you mean UADFV",
    "inspect F": "expected a torch.save or safetensors file",
    "export nosuch --output x": "no such file",
    "export F --output x": "expected a torch.save or safetensors file",
    "export W --output F/x": "folder of --output",
    "export W --to adapter --output x": "no --base",
    "export W --to peft --output x": "no --base",
    "export W --to hub-folder --output x": "results file",
    "export W --to onnx --int8 --parity F --faces nosuch --output x": "--faces",
    "calibrate --host H --weights W --val_dataset nosuch": "nosuch",
    "calibrate --host H --weights W --val_dataset UADFV --precision fp16 --device cpu": "fp16",
    "hub push . a/b": "expected what export wrote",
    "compare nosuch nosuch": "does not exist",
    "why nosuch nosuch": "does not exist",
    "report nosuch": "does not exist",
    "export-scores nosuch": "does not exist",
    "calibrate nosuch": "score file nosuch",
    "evaluate --host H --weights W --test_dataset UADFV --device nosuch": "got 'nosuch'",
    "evaluate --host H --weights W": "--test_dataset; got no names",
    "evaluate --host H --weights W --test_dataset UADFV --output_dir F/x": "output folder",
    "finetune --host H --pretrained_weights W": "--train_dataset; got no names",
    "finetune --host H --pretrained_weights W --train_dataset UADFV --metric_scoring x": "metric_scoring",
    "finetune --host H --pretrained_weights W --train_dataset UADFV --output_dir F/x": "output folder",
    "finetune --host H --pretrained_weights W --train_dataset UADFV --precision fp16 --device cpu": "fp16",
}
PROGRAM = """
import contextlib, io, json, sys
from effort_finetune.cli.main import main
done = []
for words in json.load(sys.stdin):
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    done.append([code, error.getvalue(), sorted({"torch", "scipy"} & set(sys.modules))])
print(json.dumps(done))
"""


def test_wrong_input_is_refused_before_torch_and_scipy_are_imported(tmp_path):
    host = link_host(tmp_path / "host")
    labels = {"UADFV_Real": 0, "UADFV_Fake": 1}
    videos = list_videos("UADFV", labels, {"train": 1, "val": 1, "test": 1})
    toyhost.write_dataset(host, "UADFV", videos, noise(labels, 32), layout=IN_HOST)
    with zipfile.ZipFile(tmp_path / "W", "w") as archive:
        archive.writestr("data.pkl", b"")
    (tmp_path / "C").write_bytes((tmp_path / "W").read_bytes()[:40])
    (tmp_path / "F").write_text("no picture, no folder")
    commands = [[str(host) if word == "H" else word for word in words.split()] for words in WRONG]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path, input=json.dumps(commands), capture_output=True, text=True, check=True,
    )  # fmt: skip
    for (words, expected), (code, error, imported) in zip(
        WRONG.items(), json.loads(done.stdout), strict=True
    ):
        assert (code, imported) == (2, []), (words, error)
        assert expected in error, words
        assert error.startswith("error: "), words
        assert error.count("\n") == 1, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["C", "F", "W", "host"]


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_what_every_build_has_passes(device):
    refuse_absent_device(device, "float32")


def test_the_build_is_read_as_torch_states_it():
    import torch

    assert builds_for_gpu() == bool(torch.version.cuda or torch.version.hip)
    if not builds_for_gpu():
        with pytest.raises(UserError, match="which this machine does not have"):
            refuse_absent_device("cuda:0", "auto")


@pytest.mark.parametrize(
    "words", [["leaderboard", "F"], ["calibrate", "F"], ["predict", "F", "--weights", "W"]]
)
def test_a_command_whose_processes_would_all_do_the_same_is_refused_under_a_launcher(
    words, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"{words[0]} under a launcher; got WORLD_SIZE 2; expected one process" in error
    assert error.count("\n") == 1
