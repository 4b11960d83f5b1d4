"""Runs of which half is ours: the YAML and the command line that the host's script is given."""

from __future__ import annotations

import sys

import pytest
import yaml

from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.guest import swaps
from effort_finetune.guest.evidence import HostSource

from .conftest import OURS, PARSER, THEIRS


@pytest.fixture(autouse=True)
def _no_changes_to_torch(monkeypatch):
    monkeypatch.setattr(swaps, "make_cuda_harmless", lambda: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def given() -> tuple[dict, list[str]]:
    """The YAML that the script will read, and its other words."""
    at = len(sys.argv) - sys.argv[::-1].index("--detector_path")
    return yaml.safe_load(open(sys.argv[at]).read()), sys.argv[1:]


def test_our_detector_for_the_hosts_trainer(script, capsys):
    words = ("--trainer", "null", "--train_dataset", "A", "--optimizer.lr", "0.25", "--nEpochs", "2")
    assert swaps.prepare(script("train", {**OURS, "metric_scoring": "video_auc"}, *words)) == 0
    tree, argv = given()
    assert not {"--trainer", "--optimizer.lr", "--nEpochs"} & set(argv)
    assert argv[argv.index("--train_dataset") + 1] == "A"
    assert tree["trainer"] is None
    assert tree["task_target"] is None
    assert tree["optimizer"]["adam"]["lr"] == 0.25
    assert (tree["nEpochs"], tree["metric_scoring"]) == (2, "auc")
    assert {"manualSeed", "cudnn", "SWA", "start_epoch", "lr_scheduler", "workers"} <= set(tree)
    assert "knows no video_auc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--resume", "x"), "resume; got .*host's own trainer"),
        (("--accumulation_steps", "2"), "accumulation_steps; got 2"),
        (("--balance", "oversample"), "balance; got oversample"),
        (("--optimizer.lr_head", "0.5"), r"optimizer\.lr_head; got 0\.5"),
        (("--optimizer.type", "adamw"), "optimizer.type; got adamw"),
        (("--lmdb", "false"), r"--lmdb; got False.*train_config\.yaml"),
    ],
)
def test_what_the_host_would_not_read_is_refused_by_name(script, words, error):
    with pytest.raises(UserError, match=error):
        swaps.prepare(script("train", OURS, "--trainer", "null", *words))


def test_a_hosts_detector_for_our_trainer(script):
    words = ("--trainer", "effort_finetune", "--optimizer.lr", "0.125", "--clip_grad_norm", "1.0")
    assert swaps.prepare(script("train", THEIRS, *words)) == 0
    tree, argv = given()
    assert "--trainer" not in argv
    assert tree["trainer"] == "effort_finetune"
    assert tree["optimizer"] == {"type": "adam", "adam": {"lr": 0.125}}
    assert tree["clip_grad_norm"] == 1.0
    assert type(sys.modules["trainer.trainer"].Trainer).__name__ == "TrainerFactory"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("--pretrained_checkpoint", "x.pth"),
        ("--residual_rank", "3"),
        ("--loss.orth_weight", "1"),
        ("--limit", "9"),
    ],
)
def test_a_flag_that_a_hosts_detector_never_reads_is_refused_by_name(script, word, value):
    asked = script("train", THEIRS, "--trainer", "effort_finetune", word, value)
    with pytest.raises(UserError, match=rf"{word}; got {value}; expected no such flag for .* meso4"):
        swaps.prepare(asked)
    key = {"--pretrained_checkpoint": "pretrained_weights"}.get(word, word.strip("-").partition(".")[0])
    (asked.script.parent / "theirs.py").write_text(f"config[{key!r}]")
    assert swaps.prepare(asked) == 0, "the host reads a key of that name"


def test_a_trainer_that_is_made_in_another_way_is_refused_in_one_line(script):
    asked = script("train", {**THEIRS, "trainer": "effort_finetune"})
    asked.script.write_text(PARSER.replace("time_now=timenow", "accelerator=a"))
    with pytest.raises(UserError, match=r"train\.py line 10 makes its Trainer in a way.*accelerator"):
        swaps.prepare(asked)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "extra.py",
            "import a_package_nobody_has\n",
            "'a_package_nobody_has'.*extra.py line 1",
        ),
        (
            "extra.py",
            "x = 1\n",
            "line 1 imports RankFilter, which training/extra.py does not",
        ),
        ("extra.py", "def f(:\n", "extra.py does not parse"),
        (
            "extra.py",
            "import nothing_of_note_here as dlib\nclass RankFilter: pass\n",
            "needs the package 'nothing_of_note_here'",
        ),
    ],
)
def test_what_would_stop_the_host_is_told_before_it_starts(script, name, text, words):
    asked = script("train", OURS, "--trainer", "null")
    asked.script.write_text("from extra import RankFilter\n" + PARSER)
    (asked.script.parent / name).write_text(text)
    with pytest.raises(UserError, match=words):
        swaps.prepare(asked)


def test_a_module_that_wants_a_device_is_told_before(script, monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    wants = (
        "import torch\nif torch.backends.mps.is_available():\n    d = 'mps'\n"
        "elif torch.cuda.is_available():\n    d = 'cuda'\nelse:\n    raise RuntimeError('no device')\n"
    )
    asked = script("train", OURS, "--trainer", "null")
    asked.script.write_text("import extra\n" + PARSER)
    (asked.script.parent / "extra.py").write_text(wants)
    with pytest.raises(UserError, match=r"extra\.py line 7 stops on this machine; got false for torch\."):
        swaps.prepare(asked)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert swaps.prepare(asked) == 0


def test_what_the_hosts_own_trainer_lacks_does_not_stop_ours(script):
    asked = script("train", THEIRS, "--trainer", "effort_finetune")
    asked.script.write_text("from trainer.trainer import Trainer\n" + PARSER)
    (asked.script.parent / "trainer").mkdir(exist_ok=True)
    (asked.script.parent / "trainer" / "trainer.py").write_text("import a_package_nobody_has\n")
    assert swaps.prepare(asked) == 0


@pytest.mark.parametrize("given", ["'nowhere/81.dat'", "path"])
def test_a_landmark_file_that_an_import_opens_is_told_before(script, given):
    asked = script("train", OURS, "--trainer", "null")
    asked.script.write_text("import extra\n" + PARSER)
    (asked.script.parent / "extra.py").write_text(
        f"import json as dlib\npath = 'nowhere/81.dat'\npredictor = dlib.shape_predictor({given})\n"
    )
    with pytest.raises(UserError, match=r"extra\.py line 3 opens nowhere/81\.dat, which is not there"):
        swaps.prepare(asked)


def test_what_is_guarded_or_the_hosts_own_stops_nothing(script):
    asked = script("train", OURS, "--trainer", "null")
    asked.script.write_text("import extra\n" + PARSER)
    (asked.script.parent / "deep" / "slowfast").mkdir(parents=True)
    (asked.script.parent / "extra.py").write_text(
        "try:\n    import a_package_nobody_has\nexcept ImportError:\n    pass\n"
        "def later():\n    import another_package_nobody_has\nimport slowfast\n"
    )
    assert swaps.prepare(asked) == 0


def test_errors_of_ours_in_the_hosts_script_are_one_line_with_their_code(script, capsys, monkeypatch):
    codes = []
    monkeypatch.setattr(swaps.os, "_exit", codes.append)
    swaps.prepare(script("train", OURS, "--trainer", "null"))
    capsys.readouterr()
    for error in (UserError("wrong", got=1), RunFailure("failed")):
        sys.excepthook(type(error), error, None)
    assert codes == [2, 1]
    assert capsys.readouterr().err == "error: wrong; got 1\nerror: failed\n"
    sys.excepthook(ValueError, ValueError("a bug"), None)
    assert len(codes) == 2, "other exceptions keep their traceback"


def test_a_step_that_only_the_hosts_own_detectors_have_is_one_line(script, capsys, monkeypatch):
    asked = script("train", OURS, "--trainer", "null")
    assert swaps.prepare(asked) == 0
    capsys.readouterr()
    codes = []
    monkeypatch.setattr(swaps.os, "_exit", codes.append)
    step = "class EffortFinetuneDetector: pass\nEffortFinetuneDetector().setup_pretrain()\n"
    with pytest.raises(AttributeError) as raised:
        exec(compile(step, str(asked.script), "exec"), {})
    sys.excepthook(raised.type, raised.value, raised.tb)
    assert codes == [2]
    assert capsys.readouterr().err.startswith(
        "error: training/train.py line 2 of the host asks the detector for setup_pretrain, which"
    )


def test_a_logger_whose_filter_asks_for_a_rank_is_told_before_it_starts(tmp_path):
    training = tmp_path / "training"
    training.mkdir()
    (training / "train.py").write_text("from logger import create_logger\n")
    (training / "logger.py").write_text(
        "class RankFilter:\n    def filter(self, record):\n        return dist.get_rank() == 0\n"
        "def create_logger(path):\n    handler.addFilter(RankFilter())\n"
    )
    with pytest.raises(UserError, match=r"logger\.py line 5 asks for a rank"):
        HostSource(tmp_path, training / "train.py").check({})
