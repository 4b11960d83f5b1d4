"""Checkpoints, paths and logs."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from effort_finetune.config import resolve
from effort_finetune.core import seeding
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import sha256_file
from effort_finetune.train import resuming
from effort_finetune.train import run_files as paths
from effort_finetune.train.run_log import run_logger
from effort_finetune.weights import run_state


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_generators_go_on_through_a_file(tmp_path):
    np.random.standard_normal()  # leaves a cached value behind
    path = tmp_path / "last.pth"
    run_state.save_last(path, {"rng": seeding.plain_state(seeding.capture()), "changing": {}})
    expected = [draw() for _ in range(3)] + [np.random.standard_normal()]
    seeding.restore_state(run_state.load_last(path)["rng"])
    assert [draw() for _ in range(3)] + [np.random.standard_normal()] == expected


def test_best_is_a_plain_state_dict_on_the_cpu(tmp_path):
    model = nn.Linear(2, 3)
    run_state.save_best(tmp_path / "best.pth", model)
    saved = torch.load(tmp_path / "best.pth", weights_only=True)
    assert list(saved) == ["weight", "bias"]
    assert torch.equal(saved["weight"], model.weight)
    assert not saved["weight"].requires_grad


def test_equal_weights_give_equal_files(tmp_path):
    model = nn.Linear(2, 3)
    sums = [run_state.save_best(tmp_path / name, model) for name in ("one.pth", "two.pth")]
    assert sums[0] == sums[1] == sha256_file(tmp_path / "two.pth")


def test_packing_changes_no_value_and_shares_no_memory_after_reading(tmp_path):
    tree = {
        "weights": {"a": torch.randn(3, 4), "b": torch.tensor(2.5), "empty": torch.empty(0, 2)},
        "large": torch.randn(600, 600),
        "steps": [torch.tensor(1, dtype=torch.int64), (torch.randn(2).half(), None, 0.1)],
    }
    run_state.save_last(tmp_path / "last.pth", {**tree, "changing": {}})
    back = run_state.load_last(tmp_path / "last.pth")
    assert torch.equal(back["weights"]["a"], tree["weights"]["a"])
    assert torch.equal(back["weights"]["b"], tree["weights"]["b"])
    assert back["weights"]["empty"].shape == (0, 2)
    assert torch.equal(back["large"], tree["large"])
    assert torch.equal(back["steps"][1][0], tree["steps"][1][0])
    assert isinstance(back["steps"][1], tuple)
    pointers = [back["weights"][name].untyped_storage().data_ptr() for name in ("a", "b")]
    assert pointers[0] != pointers[1]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")]
)
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    path = tmp_path / "best.pth"
    run_state.save_best(path, nn.Linear(1, 1))
    before = path.read_bytes()

    def disk_full(obj: object, stream: Any) -> None:
        stream.write(b"half of")
        raise error

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(RunFailure, match=r"cannot be written \(.*\)"):
        run_state.save_best(path, nn.Linear(1, 1))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["best.pth"]


def test_free_settings_exist():
    from effort_finetune.config import Settings

    assert set(Settings().to_dict()) >= resuming.FREE_SETTINGS


def test_settings_that_change_the_steps_are_refused_and_others_not():
    saved = {"train_batchSize": 4, "nEpochs": 2, "targets": ["a"]}
    resuming.check_settings(saved, {"train_batchSize": 4, "nEpochs": 9, "targets": ["a"], "new": 1})
    with pytest.raises(UserError, match="train_batchSize 8 instead of 4"):
        resuming.check_settings(saved, {**saved, "train_batchSize": 8})


@pytest.mark.parametrize(
    ("names", "tag"),
    [
        (["UADFV"], "uadfv"),
        (["UADFV", "Celeb-DF-v2"], "uadfv_celeb-df-v2"),
        (["a/b c"], "b-c"),
        (["./x/a", *(f"./x/g{n}" for n in range(44))], "a+44"),
    ],
)
def test_published_names(names, tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = resolve(flags={"train_dataset": names}, yaml_path=None, host_defaults={})
    assert paths.published_path(settings) == tmp_path / "finetuned" / f"effort_{tag}.pth"


def test_publishing_archives_what_was_there_and_survives_the_run_folder(tmp_path):
    selected, target = tmp_path / "run" / "best.pth", tmp_path / "finetuned" / "effort.pth"
    selected.parent.mkdir()
    target.parent.mkdir()
    target.write_bytes(b"old")
    selected.write_bytes(b"new")
    sha256 = sha256_file(selected)
    archived = paths.publish(selected, target, sha256=sha256)
    assert archived == target.with_name("effort.earlier_1.pth")
    assert (target.read_bytes(), archived.read_bytes()) == (b"new", b"old")
    assert paths.publish(selected, target, sha256=sha256) is None, "the same file is not archived"
    selected.unlink()
    assert target.read_bytes() == b"new"


def test_publishing_without_hard_links_copies(tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(paths.os, "link", refuse)
    selected = tmp_path / "best.pth"
    selected.write_bytes(b"new")
    paths.publish(selected, tmp_path / "out.pth", sha256=sha256_file(selected))
    assert (tmp_path / "out.pth").read_bytes() == b"new"


def test_what_another_process_wrote_is_not_published(tmp_path):
    selected = tmp_path / "best.pth"
    sha256 = run_state.save_best(selected, nn.Linear(1, 1))
    run_state.save_best(selected, nn.Linear(2, 2))
    with pytest.raises(RunFailure, match="is not what this run wrote"):
        paths.publish(selected, tmp_path / "out.pth", sha256=sha256)


def test_a_later_run_does_not_change_a_published_file(tmp_path):
    """The link shares the file's data; writing the checkpoint anew must not write through it."""
    selected, target = tmp_path / "best.pth", tmp_path / "out.pth"
    paths.publish(selected, target, sha256=run_state.save_best(selected, nn.Linear(1, 1)))
    before = target.read_bytes()
    run_state.save_best(selected, nn.Linear(5, 5))
    assert target.read_bytes() == before


def test_every_line_of_a_log_is_stamped(tmp_path, capsys):
    files = [tmp_path / "a" / "run.log", tmp_path / "b.log"]
    with run_logger(files) as logger:
        logger.info("one\ntwo")
        logger.warning("three %d", 3)
    text = files[0].read_text()
    assert text == files[1].read_text()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", "", line) for line in text.splitlines()] == [
        "INFO    one",
        "INFO    two",
        "WARNING three 3",
    ]
    assert "one" in capsys.readouterr().err


def test_logs_are_closed_and_appended(tmp_path):
    path = tmp_path / "run.log"
    for word in ("first", "second"):
        with run_logger([path, Path(f"{tmp_path}/./run.log")]) as logger:
            logger.info(word)
        left = logging.getLogger("effort_finetune.train").handlers
        assert not [handler for handler in left if isinstance(handler, logging.FileHandler)]
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["first", "second"]
