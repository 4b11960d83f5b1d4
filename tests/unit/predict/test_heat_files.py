"""Heat maps of judged files: PNG and numbers, named in the record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import effort_finetune
from effort_finetune.model import pointing_figures
from effort_finetune.predict.heat_files import HeatFiles, HeatMapper, overlay, peak_of
from effort_finetune.predict.prediction import load_predictor

SIZE = 32


def test_a_map_is_written_and_named(weights, settings, pictures, tmp_path):
    predictor = load_predictor(weights, settings, faces="cropped")
    files = HeatFiles(HeatMapper(predictor), tmp_path / "maps")
    asked = [str(pictures / "fake" / "fake0.png"), str(pictures / "fake" / "nothing.png")]
    records = [files.write(found, record) for found, record in predictor.judged(asked)]
    assert records[1].heat_maps == ()
    (map_,) = records[0].heat_maps
    numbers = np.load(map_.numbers)
    assert numbers.shape == (SIZE, SIZE)
    assert numbers.dtype == np.float32
    assert peak_of(numbers) == map_.peak
    assert cv2.imread(map_.picture).shape == (SIZE, SIZE, 3)
    assert "was not measured for this tower" in map_.figure
    assert records[0].to_dict()["heat_maps"][0]["method"] == map_.method


def test_python_writes_maps_and_evidence_as_the_command_does(weights, settings, pictures, tmp_path, caplog):
    asked = {"weights": weights, "settings": settings, "faces": "cropped", "threshold": 0.5, "labels": True}
    folders = {"heatmap": tmp_path / "maps", "evidence": str(tmp_path / "pages")}
    ((record,), (again,)) = (
        list(effort_finetune.predict(pictures / "fake" / "fake0.png", **asked, **folders)) for _ in range(2)
    )
    assert record.label == "fake"
    assert Path(record.heat_maps[0].picture).parent == tmp_path / "maps"
    assert len(list((tmp_path / "pages").glob("*.html"))) == 2  # the first one was archived
    assert (again.score, caplog.messages) == (record.score, [])
    page = next((tmp_path / "pages").glob("*.json"))
    page.write_text(page.read_text().replace('"torch": "', '"torch": "0.'))
    for other in set((tmp_path / "pages").glob("*.json")) - {page}:
        other.write_text(page.read_text())
    list(effort_finetune.predict(pictures / "fake" / "fake0.png", **asked, **folders))
    assert "evidence: libraries.torch: 0." in caplog.messages[0]


def test_no_map_of_a_tower_whose_maps_say_nothing(weights, settings, pictures, tmp_path, monkeypatch):
    """No better than chance where it was measured: nothing is shown, and that is said."""
    measured = {"Demo": {"share": 0.2, "interval": [0.1, 0.3], "chance": 0.15, "fakes": 200, "videos": 100}}
    predictor = load_predictor(weights, settings, faces="cropped")
    entry = {
        "tower": pointing_figures.tower_key(predictor.model), "name": "toy", "method": "grad_cam",
        "measured": measured,
    }  # fmt: skip
    monkeypatch.setattr(pointing_figures, "_figures", lambda: (entry,))
    mapper = HeatMapper(predictor)
    files = HeatFiles(mapper, tmp_path)
    (record,) = [files.write(*pair) for pair in predictor.judged([str(pictures / "fake" / "fake0.png")])]
    assert record.heat_maps == ()
    assert not list(tmp_path.iterdir())
    assert "not shown" in mapper.line()
    measured["Demo"]["interval"] = [0.16, 0.3]
    assert "0.20 [0.16, 0.30], chance 0.15" in HeatMapper(predictor).line()


def test_the_overlay_is_the_crop_where_the_map_is_nothing():
    image = np.full((4, 4, 3), 90, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1
    laid = overlay(image, heat)
    assert (laid[heat == 0] == 90).all()
    assert (laid[1, 2] != 90).any()
    assert peak_of(heat) == (2.5 / 4, 1.5 / 4)
    assert peak_of(np.zeros((4, 4), np.float32)) is None


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(weights, pictures, tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "effort_finetune", "predict", str(pictures), "--weights", str(weights)]
    command += ["--faces", "cropped", "--heatmap", str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--heatmap" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
