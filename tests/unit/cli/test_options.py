"""Settings on the command line: files, presets, other names, and what --help lists."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

import pytest

from effort_finetune.cli.context import Context
from effort_finetune.cli.main import main
from effort_finetune.cli.options import add_settings_arguments, open_run
from effort_finetune.config.aliases import ALIASES
from effort_finetune.config.key_table import known_keys
from effort_finetune.core.errors import UserError

NO_MODEL = [
    ["settings"],
    ["settings", "--json-schema"],
    ["status"],
    ["compare", "no-such-results.json"],
    ["report", "no-such-results.json"],
    ["install", "--help"],
    ["check-data", "--help"],
    ["evaluate", "--help"],
    ["finetune", "--help"],
    ["finetune", "--nEpoch", "3"],
    ["finetune", "--detector_config", "none.yaml"],
    ["finetune", "--pretrained_weights", "none.pth"],
    ["finetune", "--preset", "papr"],
    ["evaluate", "--nEpochs", "0"],
    ["evaluate", "--weights", "none.pth", "--test_dataset", "DemoA"],
]
NUMBERS = ("optimizer.lr", "optimizer.weight_decay", "test_batchSize")


def _settings(*words, mode="train"):
    parser = argparse.ArgumentParser()
    add_settings_arguments(parser)
    return open_run(parser.parse_args(words), Context(), mode=mode)[1]


def test_a_preset_lies_on_the_hosts_file_and_under_an_own_one(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("optimizer: {lr: 0.5}\nworkers: 1\n")
    alone = _settings("--preset", "paper")
    both = _settings("--preset", "paper", "--detector_config", str(own), "--nEpochs", "3")
    other_way = _settings("--detector_config", str(own), "--preset", "paper")
    assert (alone.optimizer.lr, alone.loss.orth_weight, alone.workers) == (0.0002, 0.1, 2)
    assert (both.optimizer.lr, both.loss.orth_weight, both.workers, both.nEpochs) == (0.5, 0.1, 1, 3)
    assert (other_way.optimizer.lr, other_way.workers) == (0.0002, 1)


@pytest.mark.parametrize("name", [name for name, alias in ALIASES.items() if alias.key in NUMBERS])
def test_an_error_names_the_flag_that_was_typed(name):
    with pytest.raises(UserError) as refused:
        _settings(f"--{name}", "-1")
    assert str(refused.value).startswith(f"{name} ({ALIASES[name].key}) in the command line; got -1")


def test_two_names_of_one_setting_must_agree():
    assert _settings("--lr", "0.5", "--optimizer.lr", "0.5").optimizer.lr == 0.5
    assert _settings("--lr", "0.5", "--lr", "0.25").optimizer.lr == 0.25
    with pytest.raises(UserError, match=r"lr and optimizer\.lr are two names of one setting"):
        _settings("--lr", "0.5", "--optimizer.lr", "0.25")


def test_an_unknown_preset_gets_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'paper'"):
        _settings("--preset", "papr")


@pytest.mark.parametrize("command", ["finetune", "evaluate", "check-data"])
def test_help_lists_what_the_command_reads_with_type_and_default(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    listed = set(re.findall(r"--([\w.]+)", text))
    own = {"output_dir", "pretrained_weights", "resume"}
    names = set(known_keys())
    assert (listed & names) - own == {n for n, key in known_keys().items() if command in key.read_by} - own
    assert ("nEpochs" in listed) == (command == "finetune")
    assert "[uniform or first; default uniform]" in text or command == "check-data"
    for name, alias in ALIASES.items():
        if alias.convert is None and alias.key not in own and command in known_keys()[alias.key].read_by:
            assert f"--{name}" in text


@pytest.mark.parametrize("words", NO_MODEL, ids=" ".join)
def test_answers_that_need_no_model_do_not_wait_for_torch(words, tmp_path):
    code = (
        "import sys; from effort_finetune.cli.main import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "DEEPFAKEBENCH_ROOT"},
        check=False,
    )
    *message, torch_is_there = done.stderr.strip().splitlines()
    assert torch_is_there == "False", done.stderr
    assert done.returncode in (0, 2)
    assert done.returncode == 0 or message[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
