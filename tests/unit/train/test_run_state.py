"""What a run folder holds of its model, how much an epoch writes of it, and what a killed run is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from effort_finetune.cli.main import main
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.train.loop import TrainingLoop
from effort_finetune.weights import run_state
from effort_finetune.weights.reader import read_checkpoint

from .running import document, quick, run, state


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Lets a run die of a bug in a step after ``steps`` whole ones."""
    original, made = TrainingLoop._step, 0

    def dying(self: TrainingLoop, *args: Any) -> float:
        nonlocal made
        made += 1
        if made > steps:
            raise ValueError("a bug")
        return original(self, *args)

    monkeypatch.setattr(TrainingLoop, "_step", dying)


def killed(bench: Any, monkeypatch: pytest.MonkeyPatch, steps: int = 8, **flags: Any) -> Path:
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(RunFailure, match="a bug"):
            run(bench, save_to=None, **flags)
    return bench.root / "out"


@pytest.mark.parametrize("flags", [{}, {"optimizer.amsgrad": True}, {"tune_mode": "layernorm"}])
def test_an_epoch_writes_what_is_trained_and_no_frozen_tensor(bench, flags):
    outcome = quick(bench, **flags)
    trained = document(outcome)["training"]["trainable"]["trainable"]
    assert outcome.last_path.stat().st_size <= 5 * 4 * trained + 300_000
    saved = run_state.load_last(outcome.run_dir)
    (frozen,) = outcome.run_dir.glob(run_state.FROZEN_FILES)
    kept = torch.load(frozen, weights_only=True)["frozen"]
    assert not kept.keys() & saved["changing"].keys()
    assert sum(t.numel() for t in saved["changing"].values()) == trained
    assert saved["best"].keys() == saved["changing"].keys()
    assert list(state(outcome.best_path)) == torch.load(frozen, weights_only=True)["keys"]


def test_the_frozen_part_is_written_once(bench):
    first = quick(bench, nEpochs=1)
    (frozen,) = first.run_dir.glob(run_state.FROZEN_FILES)
    before = frozen.stat()
    quick(bench, nEpochs=3, resume=str(first.run_dir))
    (again,) = first.run_dir.glob(run_state.FROZEN_FILES)
    assert (again, again.stat().st_mtime_ns) == (frozen, before.st_mtime_ns)


def test_another_frozen_part_is_refused(bench):
    outcome = quick(bench)
    (frozen,) = outcome.run_dir.glob(run_state.FROZEN_FILES)
    content = torch.load(frozen, weights_only=True)
    name = next(iter(content["frozen"]))
    content["frozen"][name] += 1
    torch.save(content, frozen)
    with pytest.raises(UserError, match=f"got another {frozen.name} than the run wrote"):
        quick(bench, nEpochs=2, resume=str(outcome.run_dir))
    frozen.unlink()
    with pytest.raises(UserError, match=f"got no {frozen.name}"):
        quick(bench, nEpochs=2, resume=str(outcome.run_dir))


def test_export_makes_what_the_run_would_have_written(bench, monkeypatch, capsys):
    """The weights of the epoch selected so far, in the same bytes."""
    whole = quick(bench, output_dir=str(bench.root / "whole"))
    folder = killed(bench, monkeypatch, nEpochs=3)
    assert not (folder / "ckpt_best.pth").exists()
    assert document_of(folder)["status"] == "failed"
    assert main(["export", str(folder)]) == 0
    assert "holds the run's weights, of epoch 0" in capsys.readouterr().out
    assert (folder / "ckpt_best.pth").read_bytes() == whole.best_path.read_bytes()
    assert main(["export", str(folder)]) == 0
    assert [p.name for p in folder.glob("ckpt_best*")] == ["ckpt_best.pth"]


def test_a_killed_runs_folder_is_read_as_its_selected_weights(bench, monkeypatch):
    whole = quick(bench, output_dir=str(bench.root / "whole"))
    folder = killed(bench, monkeypatch, nEpochs=3)
    selected, last = read_checkpoint(folder).tensors, read_checkpoint(folder / "ckpt_last.pth").tensors
    expected = state(whole.best_path)
    assert selected.keys() == expected.keys() == last.keys()
    assert all(torch.equal(selected[name], expected[name]) for name in expected)
    assert not torch.equal(last["head.weight"], expected["head.weight"])


def test_a_run_of_version_1_is_refused_in_one_line_and_its_weights_are_read(bench):
    outcome = quick(bench)
    saved = run_state.load_last(outcome.run_dir)
    whole = run_state.whole(saved, outcome.run_dir, selected=False)
    old = bench.root / "old"
    old.mkdir()
    torch.save(
        {"format": "effort_finetune.train/2", "model": whole, "epoch": 1, "selection": {"best": None}},
        old / "ckpt_last.pth",
    )
    with pytest.raises(UserError, match=r"written by version 1.*effort-finetune export") as caught:
        quick(bench, nEpochs=2, resume=str(old))
    assert "\n" not in str(caught.value)
    assert main(["export", str(old)]) == 0
    written = state(old / "ckpt_best.pth")
    assert all(torch.equal(written[name], whole[name]) for name in written)
    assert read_checkpoint(old / "ckpt_best.pth").layout == "deepfakebench"


def test_no_save_ckpt_keeps_state_while_the_run_lasts_and_leaves_none(bench, monkeypatch):
    folder = killed(bench, monkeypatch, save_ckpt=False, nEpochs=2)
    assert {p.name for p in folder.glob("*.pth")} > {"ckpt_last.pth"}
    outcome = run(bench, save_ckpt=False, nEpochs=2, resume=str(folder), test_dataset=["Toy"])
    assert " checkpoint: " not in (folder / "finetuning.log").read_text(), "a log names what is there"
    assert document(outcome)["datasets"].keys() == {"Toy"}
    assert not list(bench.root.glob("out/**/*.pth"))
    assert outcome.published_path is None
    assert not (bench.root / "published" / "effort_toy.pth").exists()


def document_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())
