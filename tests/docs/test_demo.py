"""The demo end to end, as ``make demo`` runs it, on fewer videos than its own and other people."""

from __future__ import annotations

import json
import subprocess

import pytest

from examples.demo import Size, build_demo, run

#: A quarter of the demo's frames, and a seed by which nothing was ever chosen.
SEED = 2025
SIZES = {
    "DemoA": Size(train=40, val=8, test=32, frames=2),
    "DemoB": Size(train=96, val=12, test=32, frames=2),
    "DemoC": Size(train=2, val=2, test=16, frames=2),
}


@pytest.fixture(scope="module")
def demo(clone, environment, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    host = clone / "DeepfakeBench"
    build_demo(
        host / "datasets" / "lmdb",
        host / "preprocessing" / "dataset_json",
        seed=SEED,
        sizes=SIZES,
        processes=1,
    )
    command = ["python", "-m", "examples.demo.run", "--output_dir", str(out)]
    env = {
        **environment,
        "PYTHONPATH": str(clone / "plugin"),
    }  # the clone's package: its host is the embedded one
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out, done.stdout


def _video_auc(path):
    datasets = json.loads((path / "results.json").read_text())["datasets"]
    return {name: block["video"]["auc"] for name, block in datasets.items()}


def test_the_new_forgery_is_learnt_and_the_old_one_kept(demo):
    before, after = _video_auc(demo[0] / "before"), _video_auc(demo[0] / "after")
    assert before["DemoB"] <= 0.85
    assert after["DemoB"] >= 0.93
    assert after["DemoA"] >= before["DemoA"] - 0.1
    assert set(after) == {"DemoA", "DemoB", "DemoC"}


def test_it_leaves_everything_behind(demo):
    out, printed = demo
    for name in ("finetuning.log", "settings.yaml", "ckpt_best.pth", "ckpt_last.pth", "results.json"):
        assert (out / "finetune" / name).stat().st_size > 0
    assert list((out / "finetune").glob("events.out.tfevents*"))
    assert "<svg" in (out / "report.html").read_text()
    assert "effort-finetune install /path/to/DeepfakeBench" in printed


def test_it_ends_with_a_verdict_on_three_files(demo):
    out, printed = demo
    read = {}
    for path in (out / "evidence").glob("*.json"):
        record = json.loads(path.read_text())["record"]
        read[path.name.split("-")[0]] = record
        assert "A detector is no proof" in path.with_suffix(".html").read_text()
    assert read["forged"]["calibrated"] > read["forged"]["threshold"] > read["real"]["calibrated"]
    assert len(read["forged"]["heat_maps"]) == 1
    assert (read["no_face"]["status"], read["no_face"]["verdict"]) == ("no_face", "unsure")
    assert "effort-finetune serve --weights" in printed


def test_what_is_not_there_is_generated_first(tmp_path, monkeypatch, capsys):
    (tmp_path / "preprocessing" / "dataset_json").mkdir(parents=True)
    (tmp_path / "preprocessing" / "dataset_json" / "DemoA.json").write_text("{}")
    asked = []
    monkeypatch.setattr(
        "examples.demo.build.build_demo", lambda *places, names: asked.append((places, names))
    )
    run.build_missing(tmp_path, rebuild=False)
    run.build_missing(tmp_path, rebuild=True)
    places = (tmp_path / "datasets" / "lmdb", tmp_path / "preprocessing" / "dataset_json")
    assert asked == [(places, ["DemoB", "DemoC"]), (places, ["DemoA", "DemoB", "DemoC"])]
    assert "Generating DemoB, DemoC" in capsys.readouterr().out
