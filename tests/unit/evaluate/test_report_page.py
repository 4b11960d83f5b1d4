"""The page as a whole: large and small runs, what overlaps, how large it is, and how a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from itertools import pairwise

import cv2
import numpy as np
import pytest

from effort_finetune.evaluate import html_report as report
from effort_finetune.evaluate import plots, svg
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.report_videos import video_table, videos_of
from effort_finetune.evaluate.score_file import ScoreFile
from effort_finetune.host import open_host

from .bench import Bench
from .conftest import EMBEDDED
from .simulated import simulated_run


@pytest.fixture(scope="module")
def template(checkpoint, tmp_path_factory):
    bench, folder = (
        Bench(open_host(EMBEDDED), tmp_path_factory.mktemp("data")),
        tmp_path_factory.mktemp("run"),
    )
    bench.write("ToyA")
    evaluate(bench.settings(test_dataset=["ToyA"]), bench.host, weights=checkpoint, output_dir=folder)
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def pages(template, tmp_path_factory):
    """A page of 5,000 videos, one of three runs that hold everything there is, one of one video."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "large": [simulated_run(template, folder / "l", {"A": 5000}, frames=4)],
        "rich": [
            simulated_run(
                template, folder / f"r{i}", {"A": 60, "B with a name that is long enough to be cut": 40},
                seed=i, calibrated=True, corruptions=("jpeg", "blur"), epochs=3 + i,
            )
            for i in range(3)
        ],
        "small": [simulated_run(template, folder / "s", {"A": 1}, frames=1)],
    }  # fmt: skip
    return {name: report.write_html(folder / f"{name}.html", sources) for name, sources in runs.items()}


def drawings(page):
    return [
        ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page.read_text(encoding="utf-8"), re.S)
    ]


def boxes(drawing):
    """Yields the box of every word, as wide as any usual font could make it: left, top, right, bottom."""

    def walk(element, dx, dy):
        for child in element:
            if child.tag == "g":
                x, y = map(
                    float, re.match(r"translate\(([-\d.]+) ([-\d.]+)\)", child.get("transform")).groups()
                )
                yield from walk(child, dx + x, dy + y)
            elif child.tag == "text":
                kind = child.get("class") or ""
                size = 12 if "heading" in kind else svg.FONT
                wide = len(child.text or "") * size * svg.GLYPH
                start = {"middle": wide / 2, "end": wide}.get(kind, 0)
                if move := child.get("transform"):
                    x, y = map(float, re.match(r"translate\(([-\d.]+) ([-\d.]+)\) rotate", move).groups())
                    yield child.text, x + dx - size, y + dy - wide / 2, x + dx, y + dy + wide / 2
                else:
                    x, y = float(child.get("x")) + dx, float(child.get("y")) + dy
                    yield child.text, x - start, y - size * 0.8, x - start + wide, y + size * 0.2

    yield from walk(drawing, 0.0, 0.0)


@pytest.mark.parametrize("name", ["large", "rich", "small"])
def test_no_words_overlap_or_leave_a_drawing(pages, name):
    found = drawings(pages[name])
    assert len(found) >= {"large": 6, "rich": 20, "small": 2}[name]
    for drawing in found:
        _, _, width, height = map(float, drawing.get("viewBox").split())
        words = list(boxes(drawing))
        assert words
        for text, left, top, right, bottom in words:
            inside = left >= -1 and right <= width + 8 and top >= 0 and bottom <= height
            assert inside, text
        for i, (a, *one) in enumerate(words):
            for b, *other in words[i + 1 :]:
                apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
                assert apart, f"{a!r} and {b!r} overlap"


def test_every_drawing_has_a_name_and_words_of_it(pages):
    for drawing in drawings(pages["rich"]):
        assert drawing.get("role") == "img"
        assert drawing.find("title").text
        assert drawing.find("desc").text


def test_five_thousand_videos_take_less_than_three_megabytes(pages):
    assert pages["large"].stat().st_size < 3_000_000
    text = pages["large"].read_text(encoding="utf-8")
    assert text.count("<tr><td>") + text.count('<tr class="wrong"><td>') >= 5000
    assert "For want of room" not in text


def test_three_runs_stand_with_everything_they_hold(pages):
    text = pages["rich"].read_text(encoding="utf-8")
    for words in (
        "3 runs compared", ">ROC<", ">DET: the lower left corner is best<", ">Precision and recall of fakes<",
        ">Reliability<", ">Training loss<", ">What chose the checkpoint: video_auc<", ">jpeg: video AUC<",
        ">Video AUC of each label group<", "calibrated fpr_5pct", "Every metric", "AURC",
        "r2 against r0", "A calibrated: NLL",
    ):  # fmt: skip
        assert words in text, words


def score_file(videos, frames=2):
    rng = np.random.default_rng(0)
    names = tuple(f"D/g/{v}" for v in range(videos) for _ in range(frames))
    paths = tuple(f"D\\g\\{v}\\{f:03d}.png" for v in range(videos) for f in range(frames))
    label = np.repeat(np.arange(videos) % 2, frames)
    return ScoreFile(names, paths, label, rng.uniform(size=len(names)))


def test_videos_stand_worst_first_with_their_frames():
    scores = score_file(40)
    found = video_table("D", [None, scores], 0.5, room=100_000)
    videos = videos_of(scores)
    assert found.left_out == ""
    assert found.wrong == int(np.sum((videos.prob > 0.5) != (videos.label == 1)))
    errors = [
        (0.5 - row.scores[1] if row.label == "fake" else row.scores[1] - 0.5, row.wrong) for row in found.rows
    ]
    assert all(a >= b for (a, _), (b, _) in pairwise(errors))
    assert [wrong for _, wrong in errors] == sorted((wrong for _, wrong in errors), reverse=True)
    first = found.rows[0]
    assert first.scores[0] is None
    k = scores.video.index(f"D/{first.name}")
    assert first.frames == f"000 {scores.prob[k]:.2f}, 001 {scores.prob[k + 1]:.2f}"


@pytest.mark.parametrize(("room", "rows", "frames"), [(1000, 9, 0), (5200, 40, 20)])
def test_what_there_is_no_room_for_is_said(room, rows, frames):
    found = video_table("D", [score_file(40)], 0.5, room=room)
    assert len(found.rows) == pytest.approx(rows, abs=2)
    assert sum(bool(row.frames) for row in found.rows) == pytest.approx(frames, abs=8)
    assert "For want of room" in found.left_out


def test_drawings_without_content_are_left_out():
    one = plots.Curve("a", 0, "video", np.array([1, 1]), np.array([0.2, 0.9]), None)
    assert plots.roc_svg([one]) is plots.det_svg([one]) is plots.precision_recall_svg([one]) is None
    nan = np.full(2, np.nan)
    assert plots.histogram_svg(one.label, nan, thresholds={}, title="t") is None
    assert plots.reliability_svg([("a", 0, one.label, nan)]) is None


def test_a_curve_is_drawn_where_its_numbers_are():
    plot = svg.Plot("t", "a", svg.share("x"), svg.linear("y", 0, 10))
    plot.line([0, 0.5, np.nan, 1], [0, 5, 1, 10], "run-0")
    inner = plot.width - plot.left - 14
    assert f'd="M0.0 250.0L{inner / 2:.1f} 125.0M{inner:.1f} 0.0"' in plot.svg()


@pytest.mark.parametrize(("low", "high"), [(0, 0.0), (0.4, 0.41), (-3, 1e4), (2, 2), (0, 1)])
def test_an_axis_holds_its_values_in_a_few_ticks(low, high):
    axis = svg.linear("y", low, high)
    assert axis.low <= low <= high <= axis.high
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 8


def test_names_are_cut_and_escaped():
    label, prob = np.array([0, 1, 1]), np.array([0.2, 0.9, 0.1])
    drawn = plots.roc_svg([plots.Curve('<b a="' + "x" * 300, 0, "video", label, prob, 0.5)])
    ET.fromstring(drawn)
    assert "<b" not in drawn
    assert max(map(len, re.findall(r">([^<]*)<", drawn.split("</desc>")[1]))) < 70


def _browser():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("needs Chromium: no such browser here")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_running_over(pages, tmp_path, width):
    """The page is not wider than the window, and its script makes the table of videos searchable."""
    browser = _browser()
    probe = "<script>document.title = document.documentElement.scrollWidth + ' ' + innerWidth</script></body>"
    page = tmp_path / "probe.html"
    page.write_text(pages["rich"].read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    words = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    shot = tmp_path / "shot.png"
    size = f"--window-size={width},900"
    done = subprocess.run(
        [*words, size, "--dump-dom", page.as_uri()], capture_output=True, timeout=120, check=True
    )
    dom = done.stdout.decode()
    wide, window = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
    assert wide <= window
    assert 'type="search"' in dom
    assert "60 shown" in dom
    subprocess.run(
        [*words, size, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True
    )
    assert np.ptp(cv2.imread(str(shot))) > 100
