"""The benchmarks' own arithmetic, on a tower small enough for a test; no time is asserted."""

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 112,
}


@pytest.fixture
def load(monkeypatch):
    """Imports a benchmark module by its name, as `python benchmarks/run.py` does."""
    names = (
        "run",
        "crops",
        "rows_data",
        "rows_files",
        "rows_head",
        "rows_model",
        "rows_processes",
        "rows_statistics",
        "timing",
        "towers",
    )
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def import_module(name):
        module = importlib.import_module(name)
        if name == "towers":
            monkeypatch.setattr(module, "L14", TINY)
        return module

    yield import_module
    for name in names:
        sys.modules.pop(name, None)


def test_variants_are_timed_in_turns(load):
    calls = []
    result = load("timing").interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=2
    )
    assert calls == ["a", "b"] * 5
    assert {name: len(times["samples_s"]) for name, times in result.items()} == {"a": 3, "b": 3}
    assert result["a"]["min_s"] <= result["a"]["median_s"] <= result["a"]["max_s"]


def test_compared_towers_compute_the_same(load):
    towers = load("towers")
    base = towers.dense(2).eval()
    adapted = towers.effort(base)
    images, labels = towers.batch(3)
    expected = base(images).pooler_output
    for tower in (adapted, towers.rebuilt(adapted), towers.floor(base)):
        torch.testing.assert_close(tower(images).pooler_output, expected, rtol=1e-4, atol=1e-5)
    assert sum(p.requires_grad for p in adapted.parameters()) == 8 * 3
    assert sum(p.requires_grad for p in towers.floor(base).parameters()) == 3
    step = towers.Step(adapted, images, labels, "float32")
    assert step() != step(), "a step trained nothing"


def test_loaders_are_compared_on_the_same_frames(load, monkeypatch):
    rows = load("rows_data")
    monkeypatch.delenv("DEEPFAKEBENCH_ROOT", raising=False)
    options = Namespace(videos=1, batch=5, threads=1, repeats=1, clock="cpu")
    found = list(rows.loading(options))
    assert [one["what"].split(", times")[0] for one in found] == [
        f"loading, augmentation {how}, {workers} workers" for how in ("off", "on") for workers in (0, 1)
    ]
    for one in found:
        fast = [one["measured"][name]["frames_per_s"] for name in ("ours", "host")]
        assert one["ratio"] == pytest.approx(fast[0] / fast[1], rel=1e-3)
        assert "32 crops of 256x256" in one["setup"]
    with pytest.raises(RuntimeError, match="read 4 frames, expected 5: not the same work"):
        rows._epoch([{"image": [0, 0]}] * 2, 5)()


def test_head_only_epochs_through_the_tower_and_on_features(load):
    load("towers")
    options = Namespace(layers=1, batch=8, threads=1, repeats=1, clock="cpu")
    (one,) = load("rows_head").head_only(options)
    times = [one["measured"][name]["median_s"] for name in ("through_the_tower", "on_features")]
    assert one["ratio"] == pytest.approx(times[0] / times[1], rel=1e-3)
    assert "32 crops in an LMDB" in one["setup"]


def test_epochs_above_a_frozen_prefix_and_through_the_whole_tower(load):
    load("towers")
    options = Namespace(layers=2, batch=8, threads=1, repeats=1, clock="cpu")
    (one,) = load("rows_head").frozen_prefix(options)
    assert one["what"] == "epoch with layer_range [1, 1] over one of all 2 blocks"
    assert one["target"].startswith("<= 0.60")
    times = [one["measured"][name]["median_s"] for name in ("on_features", "through_the_tower")]
    assert one["ratio"] == pytest.approx(times[0] / times[1], rel=1e-3)


def test_a_row_that_cannot_be_measured_says_why(load):
    one = load("timing").skipped("a row", "no such host")
    assert load("run").line(one) == "skipped          a row: no such host"


def test_document_holds_rows_and_no_path_of_the_machine(load, tmp_path, monkeypatch, capsys):
    run, timing = load("run"), load("timing")
    one = timing.row("a row", 2.0, target=">= 3", met=False, measured={"a": 1}, setup="none")
    monkeypatch.setitem(run.ROWS, "peft", lambda options: [one])
    output = tmp_path / "out.json"
    threads = str(torch.get_num_threads())
    arguments = ["--quick", "--rows", "peft", "--threads", threads, "--output", str(output)]
    assert run.main(arguments) == 0
    text = output.read_text()
    document = json.loads(text)
    assert document["rows"] == {"peft": [one]}
    assert document["software"]["torch"] == torch.__version__
    assert str(tmp_path) not in text
    assert str(BENCHMARKS.parent) not in text
    assert "MISSED" in capsys.readouterr().out


def test_result_file_is_named_after_the_processor(load):
    name = load("run").slug({"processor": "Some(R) Fast(TM) CPU @ 2.00GHz", "cores": 2})
    assert name == "some-fast-cpu-2-00ghz-2-cores"
    found = {"processor": "CPU", "cores": 2, "accelerator": "NVIDIA H200 (cuda:0)"}
    assert load("run").slug(found) == "nvidia-h200"


def test_a_turn_ends_when_the_device_has_finished(load, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("finished"))
    load("timing").interleaved({"a": lambda: calls.append("a")}, repeats=2, warmup=0, device="cuda:0")
    assert calls == ["a", "finished"] * 2
