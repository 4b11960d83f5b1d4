from __future__ import annotations

import json

from effort_finetune.train.run import finetune

from .conftest import COMMAND


def test_a_run_leaves_everything_the_guide_names(bench):
    outcome = finetune(bench.settings(test_dataset=["Toy"]), bench.host, command=COMMAND)
    names = {path.name for path in outcome.run_dir.iterdir()}
    assert {
        "finetuning.log",
        "settings.yaml",
        "results.json",
        "ckpt_last.pth",
        "ckpt_best.pth",
        "scores",
    } <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert outcome.published_path == bench.root / "published" / "effort_toy.pth"
    document = json.loads(outcome.results_path.read_text())
    assert document["status"] == "complete"
    assert document["training"]["epochs"] == {"asked": 2, "done": 2, "stopped_early": False}
