"""Paired comparisons: what the numbers are, what is said of them, and what they can be compared with."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from effort_finetune.core.errors import UserError
from effort_finetune.core.files import sha256_file
from effort_finetune.evaluate.compared_runs import Run, read_run
from effort_finetune.evaluate.comparison import NOTHING_SHOWN, compare, forgetting, seed_groups
from effort_finetune.evaluate.comparison_text import document_of, forgotten
from effort_finetune.evaluate.delong import difference_test, placed
from effort_finetune.evaluate.level_samples import Level
from effort_finetune.evaluate.paired import differences, holm
from effort_finetune.evaluate.table_formats import rendered


def reference_delong(label, first, second):
    """DeLong 1988 by its double sums; shares no line with the package."""
    auc, v10, v01 = [], [], []
    for scores in (first, second):
        fakes, reals = scores[label == 1], scores[label == 0]
        psi = np.array([[1.0 if f > r else 0.5 if f == r else 0.0 for r in reals] for f in fakes])
        auc.append(psi.mean())
        v10.append(psi.mean(axis=1))
        v01.append(psi.mean(axis=0))
    s = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    variance = s[0, 0] + s[1, 1] - 2 * s[0, 1]
    return auc, variance


@given(st.integers(0, 2**31), st.integers(2, 15), st.integers(2, 15))
@settings(max_examples=30)
def test_delong_equals_an_independent_computation(seed, reals, fakes):
    rng = np.random.default_rng(seed)
    label = np.r_[np.zeros(reals, int), np.ones(fakes, int)]
    scores = np.round(rng.random((2, reals + fakes)), 1)  # ties are common
    auc, variance = reference_delong(label, *scores)
    own = np.arange(len(label))
    a, b = (placed(label, one, own, label) for one in scores)
    assert [a.auc, b.auc] == pytest.approx(auc, abs=1e-12)
    error, p = difference_test(a, b)
    assert error**2 == pytest.approx(variance, abs=1e-12)
    if variance > 1e-9:
        z = (auc[1] - auc[0]) / variance**0.5
        assert p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_as_its_steps_do(p):
    adjusted = holm(p)
    for alpha in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[i] * (len(p) - rank) > alpha:
                break
            rejected.add(i)
        assert {i for i, q in enumerate(adjusted) if q <= alpha} == rejected


def level(label, prob, threshold=0.5):
    label = np.asarray(label)
    return Level(label, np.asarray(prob, float), np.arange(len(label)), threshold)


def test_a_difference_is_measured_at_each_runs_own_threshold():
    label = np.array([0] * 10 + [1] * 10)
    prob = np.linspace(0, 1, 20)
    found = differences(level(label, prob, 0.5), level(label, prob, 0.9), ["acc", "auc"], samples=200)
    assert found["acc"].first == 1.0
    assert found["acc"].second == pytest.approx(12 / 20)
    assert found["acc"].p is None
    assert found["auc"].p == 1.0
    assert found["auc"].reason == "no video tells the two apart, which bounds nothing"


def test_the_number_of_videos_grows_with_the_square():
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    sides = [level(label, 1 / (1 + np.exp(-rng.normal(label, 1)))) for _ in range(2)]
    found = differences(*sides, ["auc"], samples=300)["auc"]
    assert found.videos_needed(found.detectable) == pytest.approx(200, abs=1)
    assert found.videos_needed(found.detectable / 2) == pytest.approx(800, abs=1)


def write_run(folder, datasets, *, threshold=0.5, training=None):
    """Writes what comparing needs of a results file: scores and their block."""
    blocks = {}
    for name, (label, prob, videos) in datasets.items():
        path = folder / "scores" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["dataset", "video", "frame", "label", "prob", "logit"])
            for i, (y, p, video) in enumerate(zip(label, prob, videos, strict=True)):
                writer.writerow([name, video, f"{video}/{i}.png", int(y), repr(float(p)), "0.0"])
        blocks[name] = {
            "status": "complete",
            "scores": f"scores/{name}.csv",
            "scores_sha256": sha256_file(path),
            "warnings": [],
            "frame": {},
            "video": {},
            "counts": {"frames_scored": len(label), "videos_scored": len(set(videos))},
            "protocol": {},
        }
    return {
        "schema_version": "1.2", "status": "complete", "reason": None, "datasets": blocks,
        "protocol": {"threshold": threshold}, "training": training,
    }  # fmt: skip


def make_run(tmp_path, name, datasets, **more):
    folder = tmp_path / name
    return Run(name, folder / "results.json", write_run(folder, datasets, **more), False)


def scored(seed, shift, n=120, noise=1.0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    return label, 1 / (1 + np.exp(-rng.normal(shift * (label - 0.5), noise))), [f"v{i}" for i in range(n)]


def test_words_need_the_interval_and_holm(tmp_path):
    first = make_run(tmp_path, "first", {"A": scored(1, 0.8), "B": scored(2, 2.0)})
    second = make_run(tmp_path, "second", {"A": scored(3, 5.0), "B": scored(4, 2.0)})
    found = compare([first, second], ["video_auc", "video_eer", "frame_loss"], samples=300)
    by = {(row.dataset, row.metric): row for row in found.rows}
    assert by["A", "video_auc"].verdict == "better"
    assert by["A", "video_auc"].low > 0
    assert by["B", "video_auc"].verdict == NOTHING_SHOWN
    assert by["B", "video_auc"].videos_needed > 120
    assert by["A", "video_eer"].verdict is None
    assert by["A", "video_eer"].high < 0
    assert by["A", "frame_loss"].change is None
    worse = compare([second, first], ["video_auc"], samples=300)
    assert next(row.verdict for row in worse.rows if row.dataset == "A") == "worse"


def test_only_videos_of_both_are_compared(tmp_path):
    label, prob, videos = scored(1, 2)
    first = make_run(tmp_path, "first", {"A": (label, prob, videos)})
    second = make_run(tmp_path, "second", {"A": (label[10:], prob[10:], videos[10:])})
    found = compare([first, second], ["video_auc"], samples=100)
    assert found.rows[0].videos == 110
    assert found.rows[0].change == 0
    assert any("compared on the 110 videos that both scored, of 120 and 110" in note for note in found.notes)


def test_forgetting_leaves_out_what_was_trained_on(tmp_path):
    first = make_run(tmp_path, "first", {"New": scored(1, 0.8), "Old": scored(2, 5.0), "Older": scored(5, 2)})
    second = make_run(tmp_path, "second", {"New": scored(3, 5), "Old": scored(4, 0.8), "Older": scored(6, 2)})
    rows, means = forgetting(compare([first, second], [], samples=200), ["New"])
    assert [row.dataset for row in rows] == ["Old", "Older"]
    assert rows[0].verdict == "worse"
    assert means == {"second": pytest.approx(np.mean([row.change for row in rows]))}


def test_a_trainings_forgetting_is_one_call(tmp_path):
    first = make_run(tmp_path, "first", {"New": scored(1, 0.8), "Old": scored(2, 5.0)})
    second = make_run(tmp_path, "second", {"New": scored(3, 5), "Old": scored(4, 0.8)})
    text = forgotten(first, second, ["New"])
    assert "Old" in text
    assert "worse" in text
    assert "New" not in text
    assert "mean change of old datasets: -0." in text
    assert forgotten(first, second, ["New", "Old"]) is None


def test_a_folder_that_was_trained_on_is_no_old_dataset(tmp_path):
    """Settings have its path, results its name."""
    first = make_run(tmp_path, "first", {"gen": scored(1, 0.8), "Old": scored(2, 5.0)})
    second = make_run(tmp_path, "second", {"gen": scored(3, 5), "Old": scored(4, 0.8)}, training={})
    second.document["settings"] = {
        "train_dataset": ["/data/crops/gen", "Listed"], "val_dataset": None, "test_dataset": ["Old"],
    }  # fmt: skip
    document = document_of(compare([first, second], [], samples=200), [first, second], [])
    assert document["trained_on"] == ["Listed", "gen"]
    assert document["forgetting"]["rows"] == [["Old", "second"]]


def test_groups_of_seeds():
    def run(auc):
        return Run("r", None, {"datasets": {"A": {"video": {"auc": auc}}}}, False)

    rows = seed_groups([run(0.8), run(0.9), run(None)], ["x", "x", "y"], ["video_auc"])
    assert rows[0] == ("A", "video_auc", "x", 2, pytest.approx(0.85), pytest.approx(0.1 / 2**0.5))
    assert rows[1] == ("A", "video_auc", "y", 1, None, None)


HOSTS = {
    "computed_by": "the host's get_test_metrics", "host": {}, "model_name": "m", "weights_path": None,
    "weights_sha256": None, "avg": {},
    "datasets": {"A": {"auc": 0.9, "acc": 0.8, "video_auc": 0.95, "frames": 10}},
}  # fmt: skip


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "effort_finetune", "compare", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_two_json_files_of_test_py_are_compared_without_torch(tmp_path):
    for name, auc in (("meso", 0.7), ("effort", 0.9)):
        document = json.loads(json.dumps(HOSTS))
        document["datasets"]["A"]["auc"] = auc
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    done = command(tmp_path / "meso.json", tmp_path / "effort.json", "--labels", "meso", "effort")
    assert done.returncode == 0, done.stderr
    assert "+0.2000" in done.stdout
    assert "no scores of meso and effort at hand" in done.stdout
    assert "meso: numbers by the host's get_test_metrics" in done.stdout
    assert "better" not in done.stdout
    assert not any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


@pytest.mark.parametrize("form", ["markdown", "csv", "latex", "json"])
def test_every_format(tmp_path, form):
    for name in ("m", "e"):
        (tmp_path / f"{name}.json").write_text(json.dumps(HOSTS))
    done = command(
        tmp_path / "m.json", tmp_path / "e.json", "--labels", "a_b%", "c|d", "--format", form, "--output",
        tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out").read_text()
    expected = {"markdown": r"c\|d", "csv": "c|d", "latex": r"video\_auc", "json": '"c|d"'}[form]
    assert expected in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.json"], "does not exist"),
        (["{run}", "--metrics", "video_auk"], "video_auc"),
        (["{run}", "--labels", "a", "b"], "--labels"),
        (["{run}", "--difference", "2"], "--difference"),
        (["{run}", "--bootstrap_samples", "-1"], "--bootstrap_samples"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    (tmp_path / "m.json").write_text(json.dumps(HOSTS))
    done = command(*(a.replace("{run}", str(tmp_path / "m.json")) for a in arguments))
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert len(errors) == 1
    assert message in errors[0]


def test_a_score_file_that_is_another_one_is_refused(tmp_path):
    run = make_run(tmp_path, "first", {"A": scored(1, 2)})
    other = make_run(tmp_path, "second", {"A": scored(2, 2)})
    (tmp_path / "second" / "scores" / "A.csv").write_text("dataset\n")
    with pytest.raises(UserError, match="another content"):
        compare([run, other], ["video_auc"])


def test_a_run_by_the_host_keeps_its_levels_apart(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(HOSTS))
    run = read_run(tmp_path / "m.json", "m")
    assert run.value("A", "frame", "auc") == 0.9
    assert run.value("A", "video", "auc") == 0.95
    assert run.value("B", "video", "auc") is None


def test_latex_and_csv_escape_what_they_must():
    rows = [["dataset", "metric", "x"], ["=SUM(A1)", "a_b & 50%", "+0.0500"]]
    assert r"=SUM(A1) & a\_b \& 50\% & +0.0500 \\" in rendered(rows, "latex")
    assert rendered(rows, "latex").startswith("\\begin{tabular}{llr}\n\\toprule")
    assert list(csv.reader(io.StringIO(rendered(rows, "csv"))))[1] == ["'=SUM(A1)", "a_b & 50%", "+0.0500"]
