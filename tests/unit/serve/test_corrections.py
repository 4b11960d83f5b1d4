"""What was judged wrongly can be trained on as it lies there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from toyhost import EMBEDDED
from toytower import SIZE

from effort_finetune.core.errors import UserError
from effort_finetune.data.face_finder import Face
from effort_finetune.data.finder_choice import FinderChoice
from effort_finetune.data.frames import open_frames
from effort_finetune.host import open_host
from effort_finetune.predict.chosen_faces import ChosenFaces
from effort_finetune.predict.cutting_process import CuttingProcess
from effort_finetune.serve.corrections import Corrections
from tests.unit.serve.conftest import film

PLANTED = """
import os, cv2

decode = cv2.imdecode
cv2.imdecode = lambda data, *more: os.abort() if bytes(data)[-1:] == b"!" else decode(data, *more)
"""


def _correct(visitor, row: int, label: str | None) -> dict:
    answer = visitor.client.put(f"/rows/{row}/label", json={"label": label})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_corrected_files_are_a_train_dataset(visitor, pictures, settings, tmp_path):
    files = {file.name: file.read_bytes() for file in pictures} | {
        "fake one.mp4": film(tmp_path / "f.mp4", 5)
    }
    rows = visitor.drop(files)
    visitor.wait(rows)
    for number, row in enumerate(rows):
        told = _correct(visitor, row, ("real", "fake")[number % 2])
        assert Path(told["path"]).exists()
    asked = settings.changed(test_dataset=(told["train_dataset"],), split="all", resolution=SIZE)
    frames = open_frames(open_host(EMBEDDED), asked, split="test", names=[told["train_dataset"]])
    by_label = Counter(row.label for row in frames.rows)
    # Pictures 0, 2, 4 and the video's frames are real by the hand above, 1, 3, 5 fake.
    assert by_label == {0: 3 + 5, 1: 3}
    assert len({row.video for row in frames.rows if row.label == 0}) == 3 + 1
    still = next(path for path in Path(told["train_dataset"]).rglob("face0-*.png"))
    assert still.read_bytes() == files["face0.png"]  # a whole picture goes as it is
    record = visitor.client.get(f"/rows/{rows[0]}").json()["record"]
    assert record["label"] == "real"
    assert ",real," in visitor.client.get("/records.csv").text


def test_a_correction_can_be_changed_and_taken_back(visitor, pictures):
    (row,) = visitor.drop({"a.png": pictures[0].read_bytes()})
    visitor.wait([row])
    folder = visitor.page.corrections.folder
    for label in ("real", "fake", "fake"):
        _correct(visitor, row, label)
        assert [path.parent.name for path in folder.rglob("*.png")] == [label]
    _correct(visitor, row, None)
    assert list(folder.rglob("*.png")) == []
    assert visitor.client.get(f"/rows/{row}").json()["label"] is None


def test_without_its_bytes_a_file_cannot_be_corrected(visit, pictures):
    with visit() as before:
        (row,) = before.drop({"a.png": pictures[0].read_bytes()})
        before.wait([row])
    with visit() as after:
        answer = after.client.put(f"/rows/{row}/label", json={"label": "real"})
        assert answer.status_code == 409
        assert "drop it again" in answer.json()["detail"]


def test_a_file_without_a_verdict_has_nothing_to_correct(visit):
    with visit(judge=False) as visitor:
        (row,) = visitor.drop({"a.png": b"1"})
        assert visitor.client.put(f"/rows/{row}/label", json={"label": "real"}).status_code == 409


class _Finder:
    """Finds one face in the middle of whatever it is shown."""

    model_hash = None

    def find(self, images):
        found = []
        for image in images:
            side = image.shape[0]
            points = np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.35, 0.7], [0.65, 0.7]]) * side
            found.append([Face((0.0, 0.0, float(side), float(side)), 1.0, points)])
        return found


def test_faces_are_cut_as_the_weights_were_trained(predictor, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(FinderChoice, "make", lambda self: _Finder())
    # The stand-in is of this process.
    monkeypatch.setattr(CuttingProcess, "cut", lambda self, cutter, files, **_: map(cutter.cut, files))
    chosen = ChosenFaces(FinderChoice("mtcnn", Path(), ""), 200, 1.3, "crop", "")
    corrections = Corrections(tmp_path / "c", replace(predictor, faces=chosen))
    place = corrections.put(pictures[0], "a fake.png", "real")
    assert place.parent == tmp_path / "c" / "real"
    assert cv2.imread(str(place)).shape == (200, 200, 3)


def test_a_decoder_that_crashes_costs_one_answer(predictor, pictures, tmp_path, monkeypatch):
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(PLANTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "planted"))
    bad = tmp_path / "bad.png"
    bad.write_bytes(pictures[0].read_bytes() + b"!")
    corrections = Corrections(tmp_path / "c", predictor)
    with pytest.raises(UserError, match=r"its decoder crashed \(SIGABRT\)"):
        corrections.put(bad, "bad.png", "fake")
    assert not corrections.folder.exists()
    assert corrections.put(pictures[0], "good.png", "fake").read_bytes() == pictures[0].read_bytes()


def test_a_file_with_nothing_to_train_on_is_refused_and_leaves_nothing(visitor):
    (row,) = visitor.drop({"text.png": b"hello"})
    visitor.wait([row])
    answer = visitor.client.put(f"/rows/{row}/label", json={"label": "real"})
    assert answer.status_code == 409
    assert not visitor.page.corrections.folder.exists()
