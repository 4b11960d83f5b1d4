"""The public Python API: lazy, typed, documented, and used by the example as it stands there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import toyhost
from toyhost import EMBEDDED, IN_HOST, link_host, list_videos, noise
from toytower import save_toy_weights

import effort_finetune
from examples.finetune_in_python import main

ROOT = Path(__file__).resolve().parents[3]
SIZE = 32
assert EMBEDDED.is_dir()


def test_nothing_is_imported_before_it_is_used():
    code = (
        "import sys, effort_finetune as ef; assert 'torch' not in sys.modules\n"
        "ef.Settings(nEpochs=3); ef.open_host; assert 'torch' not in sys.modules\n"
        "assert set(ef.__all__) <= set(dir(ef)); [getattr(ef, name) for name in ef.__all__]\n"
        "try: ef.predct\nexcept AttributeError: pass\nelse: raise SystemExit(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_stands_on_a_page():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    missing = [name for name in effort_finetune.__all__ if f"effort_finetune.{name}" not in pages]
    assert not missing


def test_the_example_runs(tmp_path):
    host = link_host(tmp_path / "host")
    labels = {"UADFV_Real": 0, "UADFV_Fake": 1}
    videos = list_videos("UADFV", labels, {"train": 4, "val": 2, "test": 2})
    toyhost.write_dataset(host, "UADFV", videos, noise(labels, SIZE), layout=IN_HOST)
    save_toy_weights(tmp_path / "weights.pth", seed=1)
    small = {"resolution": SIZE, "head_width": 16, "workers": 0, "device": "cpu", "bootstrap_samples": 0}
    folder = tmp_path / "out"
    prob = main(
        str(host), "UADFV", str(tmp_path / "weights.pth"), str(folder), save_to=None, nEpochs=1, **small
    )
    assert prob.shape == (4,)
    assert (folder / "run" / "results.json").is_file()
    assert (folder / "evaluation" / "results.json").is_file()
