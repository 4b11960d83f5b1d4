"""Scores of other programs become results like our own, and our own go out and come back the same."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from effort_finetune.cli.main import main
from effort_finetune.core.metrics import binary_metrics
from effort_finetune.core.verdict_rule import RULES, strict_threshold, threshold_of
from effort_finetune.evaluate import results
from effort_finetune.evaluate.compared_runs import read_run
from effort_finetune.evaluate.foreign_scores import Columns, read_foreign


def write(path, rows, header=("id", "truth", "who", "p")):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def imported(path, folder, *flags) -> dict:
    base = ["--output_dir", str(folder), "--bootstrap_samples", "20"]
    assert main(["import-scores", str(path), *base, *flags]) == 0
    return results.read(folder)


@pytest.fixture
def matrix(tmp_path):
    """Sixty videos of two frames; many scores stand exactly at the threshold."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(60):
        fake = number % 2
        who = ("camera", f"gan{number % 3}")[fake]
        for frame in range(2):
            score = np.round(np.clip(rng.normal(0.35 + 0.3 * fake, 0.25), 0, 1), 1)
            rows.append([f"v{number}/{frame:03d}.png", ("real", "fake")[fake], who, score])
    return write(tmp_path / "theirs.csv", rows), rows


@given(st.floats(0.01, 1), st.lists(st.floats(0, 1), min_size=1), st.sampled_from(RULES))
def test_a_strict_threshold_gives_the_rules_verdicts(threshold, scores, rule):
    scores = np.array([*scores, threshold])
    expected = scores > threshold if rule == ">" else scores >= threshold
    np.testing.assert_array_equal(scores > strict_threshold(threshold, rule), expected)


@pytest.mark.parametrize("rule", RULES)
def test_numbers_are_scikit_learns(matrix, tmp_path, rule, capsys):
    path, rows = matrix
    flags = [
        "--prob_column",
        "p",
        "--label_column",
        "truth",
        "--video_column",
        "id",
        "--video_pattern",
        "(v[0-9]+)/",
    ]
    flags += ["--group_column", "who", "--rule", rule, "--detector", "theirs", "--dataset", "Mix"]
    document = imported(path, tmp_path / "out", *flags)
    assert document["kind"] == "import"
    assert document["protocol"]["verdict_rule"] == rule
    assert document["settings"]["model_name"] == "theirs"
    block = document["datasets"]["Mix"]
    label = np.array([row[1] == "fake" for row in rows]).astype(int)
    prob = np.array([row[3] for row in rows])
    for level, y, p in (
        ("frame", label, prob),
        ("video", label.reshape(-1, 2)[:, 0], prob.reshape(-1, 2).mean(1)),
    ):
        called = p > 0.5 if rule == ">" else p >= 0.5
        precision, recall, f1, _ = precision_recall_fscore_support(y, called, average="binary")
        found = block[level]
        assert found["auc"] == pytest.approx(roc_auc_score(y, p))
        assert found["ap"] == pytest.approx(average_precision_score(y, p))
        assert [found[k] for k in ("precision", "recall", "f1")] == pytest.approx([precision, recall, f1])
        low, high = found["ci95"]["intervals"]["auc"]
        assert low < found["auc"] < high
    assert set(block["groups"]) == {"camera", "gan0", "gan1", "gan2"}
    assert block["counts"]["videos_scored"] == 60
    assert "theirs" in capsys.readouterr().out


def test_rules_differ_and_compare_says_so(matrix, tmp_path, capsys):
    path, _ = matrix
    flags = ["--prob_column", "p", "--label_column", "truth", "--video_column", "id"]
    above = imported(path, tmp_path / "above", *flags)
    at_least = imported(path, tmp_path / "at_least", *flags, "--rule", ">=")
    recalls = [run["datasets"]["theirs"]["frame"]["recall"] for run in (above, at_least)]
    assert recalls[0] < recalls[1]
    assert threshold_of(at_least["protocol"]) < threshold_of(above["protocol"])
    capsys.readouterr()
    assert (
        main(["compare", str(tmp_path / "above"), str(tmp_path / "at_least"), "--metrics", "frame_recall"])
        == 0
    )
    out = capsys.readouterr().out
    assert "protocol differs in verdict_rule: above >, at_least >=" in out
    assert f"{recalls[0]:.4f}" in out
    assert f"{recalls[1]:.4f}" in out


def test_a_matrix_of_detectors_packed_filtered_and_with_holes(tmp_path, capsys):
    header = ["id", "kind", "label", "prob_a", "prob_b", "prob_c"]
    lines = [
        [f"i{i}", "image", i % 2, 0.2 + 0.5 * (i % 2), "" if i == 3 else 0.1 + i / 20, ""] for i in range(12)
    ]
    lines.append(["x", "audio", 1, 0.5, 0.5, 0.5])
    plain = write(tmp_path / "matrix.csv", lines, header)
    path = tmp_path / "matrix.csv.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    flags = ["--prob_column", "prob_*", "--where", "kind=image", "--dataset", "D", "--video_column", "id"]
    flags += ["--output_dir", str(tmp_path / "out"), "--bootstrap_samples", "0"]
    assert main(["import-scores", str(path), *flags]) == 1
    assert "1 of 12 rows of D have no score of b" in capsys.readouterr().err
    assert results.read(tmp_path / "out" / "b")["status"] == "failed"
    assert main(["import-scores", str(path), *flags, "--max_missing_rate", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "c: no row has a score, nothing is written" in out
    assert "1 row left out by --where" in out
    assert not (tmp_path / "out" / "c").exists()
    block = results.read(tmp_path / "out" / "b")["datasets"]["D"]
    assert block["missing"] == ["i3#3"]
    assert block["counts"]["frames_missing"] == 1
    assert results.read(tmp_path / "out" / "a")["datasets"]["D"]["video"]["auc"] == 1.0


@given(st.integers(0, 2**31))
@settings(max_examples=4)
def test_what_goes_out_comes_back_the_same(tmp_path_factory, seed):
    tmp = tmp_path_factory.mktemp("round")
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(int(rng.integers(4, 9))):
        name = ["=formula", "-dash", "'quoted", "a,b", "plain"][number % 5] + str(number)
        for frame in range(int(rng.integers(1, 4))):
            rows.append([name, f"{name}/{frame}", number % 2, repr(float(rng.random()))])
    path = write(tmp / "in.csv", rows, ("video", "frame", "label", "prob"))
    first = imported(path, tmp / "first", "--dataset", "D")
    out = tmp / "out.csv.gz"
    assert main(["export-scores", str(tmp / "first"), "--output", str(out)]) == 0
    second = imported(out, tmp / "second")
    for level in ("frame", "video"):
        assert first["datasets"]["D"][level] == second["datasets"]["D"][level]
    runs = [read_run(tmp / name, name).scores("D") for name in ("first", "second")]
    assert sorted(runs[0].video) == sorted(runs[1].video)
    videos = tmp / "videos.csv"
    flags = ["--level", "video", "--columns", "video=id", "label", "prob=score", "verdict"]
    assert main(["export-scores", str(tmp / "first"), "--output", str(videos), *flags]) == 0
    with videos.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    found = binary_metrics([int(row["label"]) for row in table], [float(row["score"]) for row in table])
    assert found["auc"] == first["datasets"]["D"]["video"]["auc"]
    assert [row["verdict"] == "fake" for row in table] == [float(row["score"]) > 0.5 for row in table]


def test_a_calibration_is_applied_to_other_videos(matrix, tmp_path, capsys):
    path, _ = matrix
    flags = ["--prob_column", "p", "--label_column", "truth", "--video_column", "id"]
    val = imported(path, tmp_path / "val", *flags, "--split", "val", "--where", "id=v[12]*")
    assert val["protocol"]["split"] == "val"
    stored = tmp_path / "calibration.json"
    assert main(["calibrate", str(tmp_path / "val"), "--output", str(stored)]) == 0
    found = imported(path, tmp_path / "test", *flags, "--where", "id=v[345]*", "--calibration", str(stored))
    block = found["datasets"]["theirs"]
    assert block["calibrated"]["raw"]["nll"] == pytest.approx(block["video"]["nll"])
    assert block["calibrated"]["calibrated"]["nll"] < block["calibrated"]["raw"]["nll"] + 0.1
    assert any("it is a guess" in text for text in block["warnings"])
    capsys.readouterr()
    stored.write_text("{")
    assert main(["import-scores", str(path), *flags, "--calibration", str(stored)]) == 2
    assert "--calibration" in capsys.readouterr().err


def test_log_odds_and_other_words(tmp_path):
    rows = [["a", "genuine", "x", "-1.5"], ["b", "AI", "x", "800"], ["c", "ai", "x", "-inf"]]
    path = write(tmp_path / "odds.csv", rows)
    columns = Columns("p", "truth", ("id",), real=("genuine",), fake=("ai",), logits=True)
    found = read_foreign(path, columns).rows
    assert [row.label for row in found] == [0, 1, 1]
    assert [row.prob for row in found] == pytest.approx([1 / (1 + np.exp(1.5)), 1.0, 0.0])


@pytest.mark.parametrize(
    ("content", "flags", "words"),
    [
        ("", [], ["no column 'prob'"]),
        ("a,b\n1,2\n", [], ["no column 'prob'", "a, b"]),
        ("label,prob\n1,2\n", [], ["line 2", "'2'", "--logits"]),
        ("label,prob\nmaybe,.2\n", [], ["line 2", "'maybe'", "--fake"]),
        ("label,prob\n1,.2,7\n", [], ["line 2", "cells"]),
        ("video,label,prob\nv,1,.2\nv,0,.3\n", [], ["v as real and as fake", "--video_column A B"]),
        ("video,frame,label,prob\nv,f,1,.2\nv,f,1,.3\n", [], ["twice"]),
        ("label,prob\n1,.2\n", ["--where", "label=0"], ["no row", "1 left out"]),
        ("label,prob\n1,.2\n", ["--where", "label"], ["--where", "COLUMN=VALUE"]),
        ("label,prob\n1,.2\n", ["--video_pattern", "("], ["--video_pattern", "regular"]),
        ("video,label,prob\nv,1,.2\n", ["--video_pattern", "x"], ["does not match"]),
        ("label,prob\n1,.2\n", ["--threshold", "0", "--rule", ">="], ["--threshold"]),
        ("label,prob\n1,.2\n", ["--prob_column", "prob", "label", "--detector", "x"], ["--detector"]),
        ("label,prob\n1," + "9" * 200_000 + "\n", [], ["field larger"]),
    ],
)  # fmt: skip
def test_bad_files_are_one_line_and_write_nothing(tmp_path, capsys, content, flags, words):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    assert main(["import-scores", str(path), "--output_dir", str(tmp_path / "out"), *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines
    assert not (tmp_path / "out").exists()


def test_a_broken_archive_is_one_line(tmp_path, capsys):
    path = tmp_path / "scores.csv.gz"
    path.write_bytes(gzip.compress(b"label,prob\n" + b"1,.5\n" * 1000)[:-20])
    assert main(["import-scores", str(path), "--output_dir", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--columns", "score"], ["--columns", "prob"]),
        (["--columns", "label=x", "prob=x"], ["one name twice"]),
    ],
)
def test_bad_exports(tmp_path, capsys, flags, words):
    assert main(["export-scores", str(tmp_path), "--output", str(tmp_path / "o.csv"), *flags]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)


def test_a_run_without_scores_cannot_be_exported(matrix, tmp_path, capsys):
    path, _ = matrix
    imported(path, tmp_path / "run", "--prob_column", "p", "--label_column", "truth", "--video_column", "id")
    document = json.loads((tmp_path / "run" / "results.json").read_text())
    document["datasets"]["theirs"]["scores"] = None
    (tmp_path / "run" / "results.json").write_text(json.dumps(document))
    assert main(["export-scores", str(tmp_path / "run"), "--output", str(tmp_path / "o.csv")]) == 2
    assert "no scores of theirs" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


def test_a_report_says_nothing_of_frames_that_nobody_asked_for(tmp_path):
    write(tmp_path / "s.csv", [("a", 1, 0.7)], header=("video", "label", "prob"))
    imported(tmp_path / "s.csv", tmp_path / "one")
    assert main(["report", str(tmp_path / "one"), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "frames a video" not in page.partition("</p>")[0]
    assert "None" not in page.partition("Settings")[0]
