"""What a key says of the commands that read it (``--help`` lists by it) is what they read.

Every attribute that a command takes from the settings is written down while it runs, and compared.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import pytest
import toyhost
from toyhost import EMBEDDED

import effort_finetune
from effort_finetune.config import Settings
from effort_finetune.config.key_table import known_keys
from effort_finetune.config.section import Section
from effort_finetune.data.check import check_dataset
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.host import open_host
from effort_finetune.train.finetuning import finetune

LABELS = {"Toy_Real": 0, "Toy_Fake": 1}
#: Read by a command without an effect on what it does, and why.
WITHOUT_EFFECT = {
    "finetune": {"robustness": "one evaluation for both; fine-tuning leaves corruptions out"},
    "evaluate": {
        **dict.fromkeys(
            ("freeze_backbone", "train_classification_head", "train_svd_residuals", "tune_mode", "unfreeze"),
            "the detector is made as for training, and nothing of it moves",
        ),
        **dict.fromkeys(
            ("lora.alpha", "lora.dropout", "lora.rank", "loss.ksv_weight", "loss.orth_weight"),
            "the same",
        ),
        "loss.orth_form": "the same",
        "resume": "None here",
        "trainer": "its name is checked in any YAML",
    },
    "check-data": {},
}
#: Taken from the settings where a command line is read, or for kinds of data and weights that the small runs
#: have none of.
ELSEWHERE = {
    "evaluate": {"allow_outside_paths", "allow_preprocessing_mismatch", "clip_path", "output_dir", "rgb_dir"}
    | {"frame_num.train", "val_dataset"},  # by `calibrate`, which takes the same flags
    "check-data": {"test_dataset", "train_dataset", "val_dataset"},
}


def _prefixes(section: type[Section] = Settings, prefix: str = "") -> dict[type[Section], str]:
    found = {section: prefix}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= _prefixes(field.annotation, f"{prefix}{name}.")
    return found


def _checking(frame: FrameType) -> bool:
    """Whether settings look at themselves, as they do when they are made."""
    return str(frame.f_globals["__name__"]).startswith(("effort_finetune.config", "pydantic"))


@contextmanager
def watched() -> Iterator[set[str]]:
    """Inside: the keys whose values are taken from any settings, one by one."""
    read: set[str] = set()
    prefixes, keys = _prefixes(), known_keys()
    original = Section.__getattribute__

    def noting(self: Section, name: str) -> Any:
        key = f"{prefixes.get(type(self), '?')}{name}"
        if key in keys and not _checking(sys._getframe(1)):
            read.add(key)
        return original(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Section, "__getattribute__", noting)
        yield read


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What each command read of a small run."""
    root = tmp_path_factory.mktemp("read_by")
    listed = toyhost.list_videos("Toy", LABELS, {"train": 2, "val": 2, "test": 2})
    toyhost.write_dataset(root, "Toy", listed, toyhost.noise(LABELS))
    toyhost.save_clip(root / "clip")
    host = open_host(EMBEDDED)
    bench = toyhost.Bench(host, root)
    shared = {**bench.training(LABELS), "workers": 0, "precision": "float32", "device": "cpu"}
    run = bench.settings(
        **shared, test_dataset=["Toy"], output_dir=str(root / "run"), save_to=str(root / "a.pth")
    )
    scored = run.changed(pretrained_weights=str(root / "a.pth"))
    pictures = root / "pictures"
    for label, shade in (("real", 90), ("fake", 160)):
        (pictures / label).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(pictures / label / f"{label}{number}.png"), np.full((32, 32, 3), shade + number))
    in_folder = scored.changed(test_dataset=[str(pictures)], split="all", lmdb=False)
    jobs: dict[str, list[Callable[[], Any]]] = {
        "finetune": [lambda: finetune(run, host)],
        "evaluate": [
            lambda: evaluate(scored, host, weights=None, output_dir=root / "scored"),
            lambda: evaluate(in_folder, host, weights=None, output_dir=root / "scored_folder"),
        ],
        "check-data": [
            lambda: check_dataset(host, run, "Toy", decode=4),
            lambda: check_dataset(host, run.changed(lmdb=False), "Toy", decode=4),
            lambda: check_dataset(host, run, str(pictures), decode=4),
        ],
    }
    found = {}
    for command, work in jobs.items():
        with watched() as keys:
            for job in work:
                job()
        found[command] = keys
    return found


@pytest.mark.parametrize("command", ["finetune", "evaluate", "check-data"])
def test_a_command_reads_no_key_that_its_help_does_not_list(read: dict[str, set[str]], command: str) -> None:
    unlisted = read[command] - {name for name, key in known_keys().items() if command in key.read_by}
    assert unlisted <= set(WITHOUT_EFFECT[command]), sorted(unlisted - set(WITHOUT_EFFECT[command]))


@pytest.mark.parametrize("command", ["evaluate", "check-data"])
def test_every_key_that_a_help_lists_is_read(read: dict[str, set[str]], command: str) -> None:
    listed = {name for name, key in known_keys().items() if command in key.read_by}
    unread = listed - read[command] - ELSEWHERE[command]
    assert not unread, sorted(unread)


def test_every_key_is_read_somewhere() -> None:
    """Of fine-tuning no single run reads all keys: each schedule, optimiser and mode has its own."""
    package = Path(effort_finetune.__file__).parent
    files = [file for file in package.rglob("*.py") if file.parent.name != "config"]
    taken = {
        node.attr
        for file in [*files, package / "config" / "augmentations.py"]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    unread = {name for name in known_keys() if name.rpartition(".")[2] not in taken}
    assert not unread, sorted(unread)
