"""Tables, score files and the HTML page."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort_finetune.core.errors import UserError
from effort_finetune.evaluate import html_report as report
from effort_finetune.evaluate import report_tables, results, table
from effort_finetune.evaluate.compared_runs import read_run
from effort_finetune.evaluate.comparison import compare
from effort_finetune.evaluate.comparison_text import document_of, rendered_comparison
from effort_finetune.evaluate.crops import PER_ROW, crop_rows
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.evaluation_inputs import open_datasets
from effort_finetune.evaluate.score_file import read_scores, write_scores
from effort_finetune.evaluate.video import video_scores
from effort_finetune.host import open_host

from .bench import Bench
from .conftest import EMBEDDED, Row, make_scores


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-40, 40)), min_size=1, max_size=30))
def test_a_score_file_keeps_every_bit(tmp_path_factory, frames):
    rows = [Row(f"D/{v % 2}/v,{v}", v % 2, path=f'a\\"b"\\{i}.png') for i, (v, _) in enumerate(frames)]
    scores = make_scores([logit for _, logit in frames], [row.label for row in rows])
    path = write_scores(tmp_path_factory.mktemp("scores") / "D.csv", rows, scores)
    back = read_scores(path)
    assert np.array_equal(back.prob, scores.prob)
    assert back.frame == tuple(row.path for row in rows)
    videos = video_scores(rows, scores)
    label, prob = back.by_video()
    assert np.array_equal(label, videos.label)
    assert np.array_equal(prob, videos.prob)


HEADER = "dataset,video,frame,label,prob,logit\n"


@pytest.mark.parametrize(
    "text", [None, "a,b\n1,2\n", HEADER + "D,v,f,0\n", HEADER + "D,v,f,real,0.5,0\n", HEADER + "D,v"]
)
def test_what_is_no_score_file_is_a_user_error(tmp_path, text):
    if text is not None:
        (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match="score file"):
        read_scores(tmp_path / "x.csv")


def test_score_files_of_another_run_are_not_shown_as_this_ones(bench, checkpoint, tmp_path):
    bench.write("ToyA")
    folder = tmp_path / "run"
    evaluate(bench.settings(test_dataset=["ToyA"]), bench.host, weights=checkpoint, output_dir=folder)
    file = folder / "scores" / "ToyA.csv"
    whole = file.read_text()
    file.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"ToyA\.csv; got another content than the results"):
        report.write_html(tmp_path / "page.html", [folder])
    file.write_text(whole)
    assert report.write_html(tmp_path / "page.html", [folder]).is_file()


@pytest.fixture(scope="module")
def module_bench(tmp_path_factory):
    return Bench(open_host(EMBEDDED), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def two_runs(module_bench, checkpoint, tmp_path_factory):
    """Results before and after; ToyB has one class only and ToyC was not measured before."""
    bench, folder = module_bench, tmp_path_factory.mktemp("runs")
    bench.write("ToyA", videos=12)
    bench.write("ToyB", groups=["Toy_Real"])
    bench.write("ToyC")
    for name, datasets, threshold in (
        ("before", ["ToyA", "ToyB"], 0.5),
        ("after", ["ToyA", "ToyB", "ToyC"], 0.4),
    ):
        settings = bench.settings(test_dataset=datasets, threshold=threshold)
        evaluate(settings, bench.host, weights=checkpoint, output_dir=folder / name)
    return folder / "before", folder / "after"


class _Page(HTMLParser):
    """Checks nesting and collects what a browser would load."""

    void = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.images = 0

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.loads += [attributes[k] for k in ("src", "href", "xlink:href") if attributes.get(k)]
        self.images += tag == "img"
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in self.void:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def parse(path):
    text = path.read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.stack == []
    return text, page


def test_the_page_is_whole_and_loads_nothing_from_outside(module_bench, two_runs, tmp_path):
    frames = open_datasets(module_bench.host, module_bench.settings(), ["ToyA", "ToyB"], "test")
    path = report.write_html(tmp_path / "r.html", two_runs, frames=frames, no_frames={"ToyC": "no LMDB"})
    text, page = parse(path)
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in page.loads)
    assert re.search(r"url\(|@import|https?:|fetch\(|XMLHttp", text.split("<h2>Protocol")[0]) is None
    assert text.count("<script>") == 1
    assert len(page.ids) == len(set(page.ids))
    assert {"#" + i for i in page.ids} >= {load for load in page.loads if load.startswith("#")}
    assert page.images > 0
    assert "Crops are not shown: no LMDB" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_page_shows_the_numbers_of_both_runs_and_what_they_decide(two_runs, tmp_path):
    text, _ = parse(report.write_html(tmp_path / "r.html", two_runs))
    for folder in two_runs:
        value = results.read(folder)["datasets"]["ToyA"]["video"]["auc"]
        assert f"{value:.4f}" in text
    assert "protocol differs in threshold: before 0.5, after 0.4" in text
    assert re.search(r"video and frame [^.]*AUC, AP, EER, ACC fake and Recall: no fake samples", text)
    assert "ToyA, after against before: no difference shown" in text


def test_the_average_is_that_of_the_results_where_all_datasets_were_measured(two_runs):
    runs = [read_run(folder, label) for folder, label in zip(two_runs, ("before", "after"), strict=True)]
    before, after = report_tables.summary(runs, ["ToyA", "ToyB", "ToyC"])[-2:]
    head = report_tables.summary_head()
    found = dict(zip(head, [cell.text for cell in after.cells], strict=True))
    expected = runs[1].document["average"]["video"]["acc"]
    assert (after.name, found["ACC"]) == ("average", f"{expected:.4f}")
    assert {cell.text for cell in before.cells} == {table.ABSENT}, "ToyC was not measured before"


def test_one_run_needs_no_labels(two_runs, tmp_path):
    text, _ = parse(report.write_html(tmp_path / "r.html", two_runs[:1]))
    assert "frames a video, code" in " ".join(text.split())
    shown = text.partition("<body")[2].partition("<script>")[0].lower()
    assert "before" not in shown.replace("fixed before scoring", "")


def test_names_are_escaped(two_runs, tmp_path):
    folder = shutil.copytree(two_runs[0], tmp_path / "copy")
    document = json.loads((folder / "results.json").read_text())
    evil = "<script>alert(1)</script>\u202e"
    document["command"] = [evil]
    document["datasets"][evil] = document["datasets"].pop("ToyA")
    (folder / "results.json").write_text(json.dumps(document))
    text, _ = parse(report.write_html(tmp_path / "r.html", [folder, two_runs[0]], labels=[evil, "b"]))
    assert text.count("<script") == 1
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in text


@pytest.mark.parametrize(("sources", "labels"), [(0, ()), (2, ("only one",)), (2, ("same", "same"))])
def test_wrong_numbers_of_runs_or_labels(two_runs, tmp_path, sources, labels):
    with pytest.raises(UserError):
        report.write_html(tmp_path / "r.html", [two_runs[0]] * sources, labels=labels)


def test_crops_are_one_a_video_and_mistakes_come_worst_first(module_bench, two_runs):
    frames = open_datasets(module_bench.host, module_bench.settings(), ["ToyA"], "test")["ToyA"]
    scores = read_scores(two_runs[0] / "scores" / "ToyA.csv")
    rows = crop_rows("ToyA", scores, frames, threshold=float(np.median(scores.prob)))
    assert [row.wrong for row in rows] == sorted((row.wrong for row in rows), reverse=True)
    for row in rows:
        assert 0 < len(row.crops) <= PER_ROW
        assert all(crop.uri.startswith("data:image/png;base64,") for crop in row.crops)
        videos = [crop.video for crop in row.crops]
        assert len(set(videos)) == len(videos)
        probabilities = [crop.prob for crop in row.crops]
        assert probabilities == sorted(probabilities, reverse=row.title.startswith("Reals"))
    assert [row.title for row in crop_rows("ToyA", scores, None, threshold=0.0)] == ["Reals called fake"]


def test_the_console_tables_are_aligned_and_mark_what_is_absent(two_runs):
    documents = [results.read(folder) for folder in two_runs]
    lines = table.results_table(documents[0]).splitlines()
    assert lines[0].split()[:2] == ["dataset", "level"]
    column = lines[0].index("AUC") + 2
    rows = [line for line in lines[2:] if re.match(r"\S.*?  +(video|frame) ", line)]
    assert len(rows) == 2 * len(documents[0]["datasets"]) + 4, "averages and all samples"
    assert all(line[column] != " " for line in rows)
    assert re.search(r"ToyB +video +- +-", "\n".join(lines))
    runs = [read_run(folder, label) for folder, label in zip(two_runs, ("before", "after"), strict=True)]
    found = compare(runs, ["video_auc", "frame_loss"], samples=50)
    text = rendered_comparison(document_of(found, runs, ["video_auc", "frame_loss"]), "text")
    assert re.search(r"ToyC +video_auc +after +- +0\.\d{4} +-", text)
    assert re.search(r"ToyA +frame_loss +after +\d+\.\d{4} +\d+\.\d{4} +\+0\.0000", text)
    assert re.search(r"ToyA +video_auc .*no difference shown", text)


@pytest.mark.parametrize(
    ("before", "after", "metric", "words"),
    [
        (0.5, 0.75, "video_auc", "+0.2500 better"),
        (0.5, 0.25, "video_auc", "-0.2500 worse"),
        (0.5, 0.25, "video_eer", "-0.2500 better"),
        (0.5, 0.75, "frame_loss", "+0.2500 worse"),
        (0.5, 0.5, "video_auc", "0.0000"),
        (None, 0.5, "video_auc", "-"),
    ],
)
def test_the_direction_of_a_change(before, after, metric, words):
    assert table.difference(before, after, metric) == words
