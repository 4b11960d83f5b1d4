"""``effort-finetune inspect``: the whole story of a file, as text and as JSON."""

from __future__ import annotations

import json

import make_layouts as golden
import torch

from effort_finetune.cli.main import main


def test_json_accounts_for_every_key(tmp_path, capsys):
    path = tmp_path / "ufd.pth"
    golden.ONE_LOGIT["universalfakedetect.pth"](path)

    assert main(["inspect", str(path), "--json", "--head_width", "16"]) == 0

    document = json.loads(capsys.readouterr().out)
    content = torch.load(path, weights_only=True)
    counts = document["counts"]
    assert (
        counts["usable"] + counts["derived"] + counts["ignored"] == len(content["model"]) + len(content) - 1
    )
    assert (document["layout"], document["wrappers"]) == ("universalfakedetect", ["model"])
    assert (document["rank"], document["resolution"], document["heads"], document["head_outputs"]) == (
        1,
        32,
        2,
        2,
    )
    assert len(document["sha256"]) == 64
    assert sum(len(keys) for keys in document["ignored"].values()) == counts["ignored"]


def test_text_names_layout_and_what_would_be_ignored(tmp_path, capsys):
    path = tmp_path / "fork.pth"
    golden.EFFORT["effort_fork.pth"](path)

    assert main(["inspect", str(path)]) == 0

    out = capsys.readouterr().out
    assert "effort-fork" in out
    assert "24: backbone." in out
    assert "derivable" in out
    assert "MISSING" not in out


def test_damage_is_shown_not_refused(tmp_path, capsys):
    path = tmp_path / "damaged.pth"
    state = golden.detector()
    del state["head.bias"]
    torch.save({**state, "backbone.surprise": torch.zeros(1)}, path)

    assert main(["inspect", str(path)]) == 0

    out = capsys.readouterr().out
    assert "MISSING" in out
    assert "1: head.bias" in out
    assert "UNEXPECTED" in out
    assert "1: backbone.surprise" in out


def test_what_is_no_checkpoint_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello")

    assert main(["inspect", str(tmp_path / "notes.txt")]) == 2
    assert "expected a torch.save or safetensors file" in capsys.readouterr().err
