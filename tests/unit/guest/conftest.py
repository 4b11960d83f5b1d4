"""A host in miniature with the plugin installed, and a run of one of its scripts in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from effort_finetune.guest.asked import Asked, read_asked

OURS = {"model_name": "effort_finetune", "nEpochs": 3, "optimizer": {"type": "adam", "lr": 0.5}}
THEIRS = {"model_name": "meso4", "nEpochs": 3, "optimizer": {"type": "adam", "adam": {"lr": 0.5}}}

#: What SCLBD's train.py asks for.
PARSER = (
    "import argparse\n"
    "parser = argparse.ArgumentParser()\n"
    "parser.add_argument('--detector_path', type=str, default='/theirs.yaml', help='path to detector YAML')\n"
    "parser.add_argument('--train_dataset', nargs='+')\n"
    "parser.add_argument('--test_dataset', nargs='+')\n"
    "parser.add_argument('--no-save_ckpt', dest='save_ckpt', action='store_false', default=True)\n"
    "parser.add_argument('--local_rank', type=int, default=0)\n"
    "parser.add_argument('--task_target', type=str, default='')\n"
    "args = parser.parse_args()\n"
    "def main(): Trainer(config, model, optimizer, scheduler, logger, metric_scoring, time_now=timenow)\n"
    "opt = 'adam'\n"
)


@pytest.fixture
def script(host_root: Path) -> Callable[..., Asked]:
    """Makes a run: ``script("train", OURS, "--nEpochs", "1")``."""

    def make(mode: str, detector: dict, *words: str) -> Asked:
        path = host_root / f"training/{mode}.py"
        path.write_text(PARSER)
        yaml_path = host_root / "detector.yaml"
        yaml_path.write_text(yaml.safe_dump(detector))
        asked = read_asked(path, ["--detector_path", str(yaml_path), *words])
        assert asked is not None
        return asked

    return make


@pytest.fixture(autouse=True)
def _process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of ours change the process, as they should; a test has to take that back."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "trainer.trainer", raising=False)
    main = sys.modules["__main__"]
    for name in ("__file__", "__spec__"):
        if name in vars(main):
            monkeypatch.setattr(main, name, getattr(main, name))
