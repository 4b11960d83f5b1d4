"""Two results are put side by side with everything that makes them incomparable said."""

from __future__ import annotations

import copy
import shutil

import pytest

from effort_finetune.evaluate import html_report as report
from effort_finetune.evaluate import results, table
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.protocol import auc_warnings


@pytest.fixture
def measured(bench, checkpoint, tmp_path):
    """Evaluates ToyA as written with ``data`` under ``settings``; returns the document."""

    def measure(name, data=None, **settings):
        shutil.rmtree(bench.root, ignore_errors=True)
        bench.write("ToyA", **(data or {}))
        asked = bench.settings(test_dataset=["ToyA"], max_missing_rate=0.5, **settings)
        return results.read(evaluate(asked, bench.host, weights=checkpoint, output_dir=tmp_path / name))

    return measure


def differences(*documents):
    return table.protocol_differences(documents, ["a", "b"])


def test_equal_runs_do_not_differ(measured):
    assert differences(measured("a"), measured("b", test_batchSize=5)) == []


def test_as_many_frames_but_other_ones(measured):
    runs = [measured(str(number), {"missing": [number]}) for number in (1, 4)]
    (line,) = differences(*runs)
    assert line.startswith("ToyA differs in what was scored, as many but other frames: a ")
    old = copy.deepcopy(runs[1])
    del old["datasets"]["ToyA"]["frames_sha256"]  # a file of schema 1.0 cannot tell
    assert differences(runs[0], old) == []


def test_other_labels_of_the_same_frames(measured):
    runs = [measured("a"), measured("b", label_dict={"Toy_Real": 1, "Toy_Fake": 0})]
    assert any("as many but other frames" in line for line in differences(*runs))


def test_other_pixels_of_the_same_frames(measured):
    (line,) = differences(
        measured("a"), measured("b", mean=[0.5, 0.5, 0.5], allow_preprocessing_mismatch=True)
    )
    assert line.startswith("ToyA differs in mean: a [0.48145466, ")
    assert line.endswith("b [0.5, 0.5, 0.5]")


def test_numbers_of_other_definitions(measured):
    one = measured("a")
    assert differences(one, {**one, "schema_version": "1.0"}) == ["schema_version differs: a 1.2, b 1.0"]


def test_warnings_come_along(measured):
    clean, one = measured("a"), measured("b")
    one["datasets"]["ToyA"]["warnings"] = ["an oracle"]
    assert table.taints([clean, one], ["a", "b"]) == ["warning: ToyA of b: an oracle"]
    assert table.taints([one, one], ["a", "b"]) == ["warning: ToyA of a, b: an oracle"]


@pytest.mark.parametrize("tainted", ["before", "after"])
def test_the_page_shows_the_warnings_of_both_runs(measured, tmp_path, tainted):
    for name in ("before", "after"):
        document = measured(name)
        if name == tainted:
            document["datasets"]["ToyA"]["warnings"] = ["an oracle"]
        results.write(tmp_path / name / "results.json", document)
    page = report.write_html(tmp_path / "page.html", [tmp_path / "before", tmp_path / "after"])
    assert f'<p class="note">{tainted}: an oracle</p>' in page.read_text()


@pytest.mark.parametrize(("group", "word"), [("Toy_Real", "real"), ("Toy_Fake", "fake")])
def test_one_class_is_a_warning(measured, group, word):
    block = measured("a", {"groups": [group]})["datasets"]["ToyA"]
    expected = f"all scored videos of ToyA are {word}: precision and F1 say nothing about a detector"
    assert block["warnings"] == [expected]


def test_scores_the_wrong_way_round_are_a_warning():
    def block(auc, interval, videos=20):
        return {
            "counts": {"videos_real": videos, "videos_fake": videos},
            "video": {"auc": auc, "ci95": {"intervals": {"auc": interval}}},
        }

    assert auc_warnings("ToyA", block(0.5, None)) == []
    assert auc_warnings("ToyA", block(None, None)) == []
    (line,) = auc_warnings("ToyA", block(0.3, [0.2, 0.41]))
    assert line.startswith("video AUC of ToyA is 0.3000, below .5: fakes score lower than reals; labels,")
    assert "likely wrong" in auc_warnings("ToyA", block(0.0, None))[0]
    assert auc_warnings("ToyA", block(0.0, None, videos=1))[0].endswith("it may be chance")
    assert auc_warnings("ToyA", block(0.45, [0.3, 0.6]))[0].endswith("it may be chance")


def test_a_perfect_auc_of_few_videos_is_a_warning():
    def told(auc, reals, fakes):
        counts = {"videos_real": reals, "videos_fake": fakes}
        return auc_warnings(
            "ToyA", {"counts": counts, "video": {"auc": auc, "ci95": {"intervals": {"auc": None}}}}
        )

    assert told(1.0, 10, 12) == [
        "video AUC of ToyA is 1 on 10 real and 12 fake videos, and 10 without an error leave room for an "
        "error rate of 31 %"
    ]
    assert told(1.0, 36, 40) == told(0.99, 10, 12) == []
    assert len(told(1.0, 400, 35)) == 1
