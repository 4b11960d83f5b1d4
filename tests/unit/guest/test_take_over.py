"""Which runs are ours, and what happens to each kind."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from effort_finetune.guest import take_over as package_take_over
from effort_finetune.guest.asked import read_asked
from effort_finetune.guest.flags import help_text, take_apart
from effort_finetune.guest.host_script import option_names, options, trainer_calls

from .conftest import OURS, THEIRS


@pytest.mark.parametrize(
    ("mode", "tree", "words", "ours", "whole"),
    [
        ("train", OURS, (), True, True),
        ("test", OURS, (), True, True),
        ("train", OURS, ("--trainer", "null"), True, False),
        ("test", OURS, ("--trainer", "null"), True, True),
        ("train", {**OURS, "trainer": None}, (), True, False),
        ("train", {**OURS, "trainer": None}, ("--trainer=effort_finetune",), True, True),
        ("train", THEIRS, (), False, False),
        ("train", {**THEIRS, "trainer": "effort_finetune"}, (), True, False),
        ("train", THEIRS, ("--trainer", "effort_finetune"), True, False),
        ("test", {**THEIRS, "trainer": "effort_finetune"}, (), False, False),
        ("train", {**THEIRS, "model_name": "effort"}, (), False, False),
    ],
)
def test_whose_run_it_is(script, mode, tree, words, ours, whole):
    asked = script(mode, tree, *words)
    assert (asked.is_ours, asked.is_whole_job) == (ours, whole)


@pytest.mark.parametrize("content", [None, "a: [", "- a list\n", b"\xff\xfe"])
def test_a_yaml_that_cannot_be_read_is_left_to_the_script(host_root, content):
    path = host_root / "d.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_asked(host_root / "training/train.py", ["--detector_path", str(path)]) is None
    assert read_asked(host_root / "training/train.py", ["--detector_path"]) is None
    assert read_asked(host_root / "training/train.py", []) is None


def test_an_imported_script_and_another_detector_do_nothing(script, monkeypatch):
    asked = script("train", THEIRS, "--train_dataset", "A")
    monkeypatch.setattr(sys, "argv", ["train.py", *asked.argv])
    before = dict(sys.modules)
    package_take_over(str(asked.script), "train")
    package_take_over(str(asked.script), "__main__")
    assert sys.argv[1:] == list(asked.argv)
    assert "trainer.trainer" not in sys.modules
    assert set(sys.modules) == set(before)


def test_another_detectors_run_imports_nothing_heavy(script):
    asked = script("train", THEIRS)
    program = (
        "import sys; from effort_finetune.guest import take_over\n"
        "sys.argv = ['train.py', *sys.argv[2:]]; take_over(sys.argv.pop(1), '__main__')\n"
        "print([n for n in ('torch', 'numpy', 'pydantic', 'effort_finetune.host') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "x", str(asked.script), *asked.argv],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_output_json_of_another_detector_names_the_command_that_has_it(script, monkeypatch, capsys):
    asked = script("test", THEIRS, "--output_json", "x.json")
    monkeypatch.setattr(sys, "argv", ["test.py", *asked.argv])
    with pytest.raises(SystemExit) as caught:
        package_take_over(str(asked.script), "__main__")
    assert caught.value.code == 2
    assert "effort-finetune evaluate --detector_config" in capsys.readouterr().err


def test_help_shows_the_hosts_options_then_ours(script):
    text = help_text(script("train", OURS, "--help"))
    assert text.index("--task_target") < text.index("options of effort_finetune") < text.index("--resume")
    assert "path to detector YAML" in text
    assert text.count("--train_dataset") == 1


def test_a_scripts_options_and_trainer_are_read_from_its_source(script):
    path = script("train", OURS).script
    assert {"--detector_path", "--no-save_ckpt", "--local_rank"} <= option_names(path)
    takes = {option.names[0]: option.takes for option in options(path)}
    assert takes["--no-save_ckpt"] == "0"
    assert takes["--train_dataset"] == "+"
    assert trainer_calls(path) == [(10, 6, ("time_now",))]


def test_a_command_line_is_taken_apart():
    words = ["--detector_path", "d.yaml", "--train_dataset", "A", "B", "--no-save_ckpt", "--local-rank=0"]
    words += ["--lr", "1e-3", "--mean", "0.5", "0.5", "0.25", "--lmdb", "--resume", "null"]
    given = take_apart(words)
    assert given.host == {"detector_path": "d.yaml", "no_save_ckpt": True, "local_rank": "0"}
    assert given.settings == {
        "train_dataset": ["A", "B"],
        "lr": "1e-3",
        "mean": [0.5, 0.5, 0.25],
        "lmdb": True,
        "resume": None,
    }


def test_every_unknown_flag_is_told_at_once():
    with pytest.raises(Exception, match="nEpoch") as caught:
        take_apart(["--nEpoch", "3", "--optimiser.lr", "1"])
    assert "'--nEpochs'" in str(caught.value)
    assert "--optimizer.lr" in str(caught.value)


def test_the_yaml_of_a_run_is_read_once_more_by_nobody(script):
    """What a worker sees is the same file: the copy that a swap makes is a detector's YAML like any other."""
    asked = script("train", {**THEIRS, "trainer": "effort_finetune"})
    assert yaml.safe_load(asked.yaml_path.read_text())["trainer"] == "effort_finetune"
