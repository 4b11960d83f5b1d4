"""One entry in one table is all: the entry is in results, schema, help, documentation and report.

A copy of the package gets one line in each of five files, as somebody would write it who adds an entry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GREY = """

class Grey(Step):
    STEP = "grey"
    grey_prob: Share = setting(0.0, "probability of a grey image")

    def values(self):
        return {"p": self.grey_prob}

    def transform(self, library):
        return library.ToGray(p=self.grey_prob)


"""
#: File, where in it, and what is put after that.
ENTRIES = (
    (
        "core/metrics.py",
        "TABLE: dict[str, Metric] = _table(\n",
        '    Metric("odds", "Odds", "mean odds of fake", f.brier, lower_is_better=True, column=True),\n',
    ),
    (
        "config/aliases.py",
        "ALIASES: Mapping[str, Alias] = {\n",
        '    "epochs_in_all": Alias("nEpochs", "a test"),\n',
    ),
    ("config/augmentations.py", "        return library.ImageCompression(**quality, p=JPEG_PROB)\n", GREY),
    ("config/augmentations.py", "STEPS: tuple[type[Step], ...] = (\n", "    Grey,\n"),
    (
        "install/known_problems.py",
        "PROBLEMS: tuple[Problem, ...] = (\n",
        '    Problem("the moon is full", "wait", lambda host: True),\n',
    ),
    (
        "weights/layouts.py",
        "KNOWN = (\n",
        '    Layout("moon", "files from the moon", _has("moon.encoder."), "moon.", "dark_side."),\n',
    ),
)
SCRIPT = """
import json, sys
from collections import defaultdict
from pathlib import Path
import numpy as np, torch
from effort_finetune.config import DataAug
from effort_finetune.config.json_schema import json_schema
from effort_finetune.core.metrics import binary_metrics
from effort_finetune.data.augment import Augmentation
from effort_finetune.evaluate.compared_runs import Run
from effort_finetune.evaluate.report_tables import every_metric, summary_head
from effort_finetune.evaluate.results import schema
from effort_finetune.evaluate.table import results_table
from effort_finetune.host import open_host
from effort_finetune.install.known_problems import find_traps
from effort_finetune.weights.layouts import canonicalise
from tools.generate import BLOCKS

grey = Augmentation(DataAug(flip_prob=0, rotate_prob=0, blur_prob=0, brightness_prob=0, grey_prob=1))
image = grey(np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8), 7).astype(int)
file = {"moon.encoder.layers.0.mlp.fc1.bias": torch.ones(3), "dark_side.bias": torch.ones(2)}
read = canonicalise(file, "")
measured = {**binary_metrics([0, 1], [0.2, 0.9]), "ci95": {"intervals": {"auc": None}}}
document = {"datasets": {"D": {"frame": None, "video": measured, "warnings": [], "counts": defaultdict(int)}},
            "average": {}}
json.dump({
    "metric": measured,
    "table": results_table(document).splitlines()[0],
    "report": [*summary_head(), *(row[0] for row in every_metric([Run("", Path(), document, False)], "D"))],
    "results_schema": schema(),
    "settings_schema": json_schema(),
    "steps": grey.describe(),
    "colour": int(np.ptp(image, axis=2).max()),
    "traps": [finding.what for finding in find_traps(open_host(sys.argv[1]))],
    "layout": read.layout, "tensors": sorted(read.tensors), "unexpected": read.unexpected,
    "pages": {name: block() for name, block in BLOCKS.items()},
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a package with the five entries says, and its ``finetune --help`` and ``compare --help``."""
    root = tmp_path_factory.mktemp("one_place")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("plugin", "tools", "configs", "patches", "benchmarks"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    host = root / "host"
    shutil.copytree(ROOT / "DeepfakeBench", host, ignore=ignore)
    (host / "training" / "embedded_host.txt").unlink()  # so that it is looked at like a real one
    for name, where, entry in ENTRIES:
        path = root / "plugin" / "effort_finetune" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(where) == 1, name
        path.write_text(text.replace(where, where + entry), encoding="utf-8")

    def run(*words: str) -> str:
        env = {**os.environ, "PYTHONPATH": f"{root / 'plugin'}{os.pathsep}{root}"}
        done = subprocess.run(
            [sys.executable, *words], cwd=root, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    helps = [run("-m", "effort_finetune", command, "--help") for command in ("finetune", "compare")]
    return json.loads(run("-c", SCRIPT, str(host))), "".join(helps)


def test_a_metric(told):
    said, text = told
    assert said["metric"]["odds"] == pytest.approx(0.025)
    assert (
        said["results_schema"]["$defs"]["metrics"]["properties"]["odds"]["description"] == "mean odds of fake"
    )
    assert "odds" in said["results_schema"]["$defs"]["average"]["properties"]
    assert "odds" in text
    assert "| `odds` | Odds | mean odds of fake | lower | bca |" in said["pages"]["metrics"]
    assert "Odds" in said["table"]
    assert said["report"].count("Odds") == 2, "a column of the summary, and a row of every metric"


def test_an_alias(told):
    said, text = told
    assert "epochs_in_all" in said["settings_schema"]["properties"]
    assert "--epochs_in_all" in text
    assert "| `epochs_in_all` | `nEpochs` | a test |" in said["pages"]["aliases"]


def test_an_augmentation(told):
    said, text = told
    assert {"step": "grey", "p": 1.0} in said["steps"]
    assert said["colour"] <= 4  # JPEG at quality 60 and more leaves a little of it
    assert "grey_prob" in said["settings_schema"]["$defs"]["DataAug"]["properties"]
    assert "--data_aug.grey_prob" in text
    assert "| grey | `grey_prob` |" in said["pages"]["augmentations"]
    assert "`data_aug.grey_prob`" in said["pages"]["settings"]


def test_a_known_problem_of_hosts(told):
    said, _ = told
    assert "the moon is full" in said["traps"]
    assert "| the moon is full | wait |" in said["pages"]["problems"]


def test_a_layout(told):
    said, _ = told
    assert (said["layout"], said["unexpected"]) == ("moon", [])
    assert said["tensors"] == ["backbone.encoder.layers.0.mlp.fc1.bias", "head.bias"]
    assert "| `moon` | `moon.*`, `dark_side.*` | files from the moon |" in said["pages"]["layouts"]
