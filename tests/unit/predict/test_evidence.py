"""The evidence of a file: everything in one page, the same when it is made again, what differs is listed."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from effort_finetune.evaluate.calibration import fit
from effort_finetune.export.calibrated import store_calibration
from effort_finetune.predict.evidence_data import differences
from effort_finetune.predict.evidence_files import Evidence
from effort_finetune.predict.evidence_plots import calibration_svg
from effort_finetune.predict.heat_files import HeatMapper
from effort_finetune.predict.prediction import Predictor, load_predictor
from effort_finetune.predict.verdicts import Rule


@pytest.fixture(scope="module")
def predictor(weights, settings, tmp_path_factory) -> Predictor:
    """Weights with a calibration, which lies where their scores of random pictures lie."""
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    prob = 1 / (1 + np.exp(-(rng.normal(0.0, 1.0, 200) + label)))
    output = tmp_path_factory.mktemp("calibrated") / "effort.pth"
    about = {"datasets": {"Val<b>Set": {}}}
    store_calibration(weights, fit(label, prob, fitted_on=about), output)
    return load_predictor(output, settings, faces="cropped")


def _made(predictor, files, folder, *, stability=True):
    evidence = Evidence(predictor, HeatMapper(predictor), folder)
    return [evidence.write(*pair) for pair in predictor.judged(map(str, files), stability=stability)]


def test_a_page_holds_all_it_needs_and_what_a_reader_must_know(predictor, pictures, tmp_path):
    _made(predictor, [pictures / "fake" / "fake0.png"], tmp_path)
    (page,) = tmp_path.glob("*.html")
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert "http" not in re.sub(r"data:[^\"]+", "", text)
    data = json.loads(page.with_suffix(".json").read_text())
    report = predictor.model.load_report
    for needed in (
        data["record"]["sha256"], report.sha256, "A detector is no proof", "CC BY-NC 4.0",
        "Calibration on the validation videos", "real called fake", "Delivered as", torch.__version__,
        "was not measured for this tower", "Val&lt;b&gt;Set",
    ):  # fmt: skip
        assert needed in text, needed
    assert "Val<b>Set" not in text
    assert data["calibration"]["sha256"] == report.statement.calibration["sha256"]
    assert data["record"]["stability"]["frames"] == 1


def test_made_again_it_is_the_same_but_for_the_time(predictor, pictures, tmp_path):
    files = [pictures / "real" / "real1.png", pictures / "nothing.png"]
    _made(predictor, files, tmp_path / "one", stability=False)
    _made(predictor, files, tmp_path / "two", stability=False)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 4
    for name in names:
        one, two = ((tmp_path / folder / name).read_text() for folder in ("one", "two"))
        time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
        assert len(re.findall(time, one)) == 1
        assert re.sub(time, "", one) == re.sub(time, "", two)


def test_an_earlier_evidence_is_archived_and_what_differs_is_told(predictor, pictures, tmp_path):
    file = pictures / "real" / "real2.png"
    assert _made(predictor, [file], tmp_path, stability=False) == [[]]
    assert _made(predictor, [file], tmp_path, stability=False) == [[]]
    assert len(list(tmp_path.glob("*.json"))) == 2
    place = next(path for path in tmp_path.glob("*.json") if path.with_suffix(".html").exists())
    data = json.loads(place.read_text())
    data["libraries"]["torch"] = "1.0"
    data["record"]["score"] += 0.01
    lines = differences(data, json.loads(place.read_text()))
    assert any(line.startswith("libraries.torch: 1.0 before") for line in lines)
    assert any(line.startswith("score: ") for line in lines)
    data["record"]["score"] -= 0.01 + 5e-5
    assert len(differences(data, json.loads(place.read_text()))) == 1
    place.write_text("{}")
    newest = max(tmp_path.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_text("[]")
    for path in tmp_path.glob("*.json"):
        path.write_text("{}")
    assert "no evidence" in _made(predictor, [file], tmp_path, stability=False)[0][0]


def test_bins_that_are_none_draw_nothing():
    assert calibration_svg({"raw": "x", "calibrated": [{"probability": "<script>"}]}, 0.5) is None
    assert calibration_svg({}, None) is None


def test_the_raw_threshold_is_that_of_the_calibrated_one():
    rule = Rule(0.6, "", temperature=2.0, bias=0.5)
    raw = rule.raw_threshold()
    assert rule.calibrated(raw) == pytest.approx(0.6)
    assert Rule(0.3, "").raw_threshold() == 0.3


def test_a_name_of_somebodys_choice_does_no_harm(predictor, pictures, tmp_path):
    file = tmp_path / "<img src=x onerror=alert(1)>.png"
    file.write_bytes((pictures / "real" / "real0.png").read_bytes())
    ((found, record),) = predictor.judged([str(file)])
    folder = tmp_path / "out"
    Evidence(predictor, HeatMapper(predictor), folder).write(found, record)
    (page,) = folder.glob("*.html")
    assert "<img src=x" not in page.read_text()
