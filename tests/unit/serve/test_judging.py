"""Files to verdicts on the page: the same as everywhere, each file for itself."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
from toyhost import EMBEDDED
from toytower import SIZE

import effort_finetune
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.score_file import read_scores
from effort_finetune.host import open_host
from effort_finetune.serve import scoring_thread
from tests.unit.serve.conftest import film


def test_a_file_has_the_probability_that_evaluate_measures(visitor, pictures, weights, settings, tmp_path):
    for label in ("real", "fake"):
        (tmp_path / "set" / label).mkdir(parents=True)
    for number, file in enumerate(pictures):
        (tmp_path / "set" / ("real", "fake")[number % 2] / file.name).write_bytes(file.read_bytes())
    asked = settings.changed(
        test_dataset=(str(tmp_path / "set"),), split="all", resolution=SIZE, bootstrap_samples=0
    )
    path = evaluate(asked, open_host(EMBEDDED), weights=weights, output_dir=tmp_path / "out")
    (block,) = json.loads(path.read_text())["datasets"].values()
    scores = read_scores(tmp_path / "out" / block["scores"])
    measured = {Path(frame).name: prob for frame, prob in zip(scores.frame, scores.prob, strict=True)}
    shown = visitor.wait(visitor.drop({file.name: file.read_bytes() for file in pictures}))
    assert {row["name"]: row["prob"] for row in shown} == pytest.approx(measured, abs=1e-6)
    sent = [("files", (file.name, file.read_bytes())) for file in pictures]
    records = visitor.client.post("/predict", files=sent).json()
    assert {r["file"]: r["score"] for r in records} == pytest.approx(measured, abs=1e-6)


def test_records_are_those_of_predict(visitor, pictures, weights, settings):
    (row,) = visitor.wait(visitor.drop({"holiday/face.png": pictures[0].read_bytes()}))
    (record,) = effort_finetune.predict(pictures[0], weights=weights, settings=settings, faces="whole")
    assert row["record"] == json.loads(json.dumps(record.to_dict())) | {"file": "holiday/face.png"}


def test_a_broken_file_harms_its_own_row_alone(visitor, pictures, tmp_path):
    good = pictures[0].read_bytes()
    files = {
        "zero.jpg": b"", "text.png": b"hello", "cut.png": good[:400], "good.png": good, "as.mp4": good,
        "film.mp4": film(tmp_path / "film.mp4", 6),
    }  # fmt: skip
    shown = {row["name"]: row for row in visitor.wait(visitor.drop(files))}
    assert {name for name, row in shown.items() if row["status"] == "unreadable"} == {
        "zero.jpg", "text.png", "cut.png",
    }  # fmt: skip
    assert shown["good.png"]["prob"] == pytest.approx(shown["as.mp4"]["prob"], abs=1e-6)
    assert len(shown["film.mp4"]["record"]["faces"][0]["frames"]) == 6
    assert len(shown["film.mp4"]["pictures"]["crops"]) == 6


CRASH = """
import os, cv2
decode = cv2.imdecode
cv2.imdecode = lambda data, *more: os.abort() if bytes(data).endswith(b"crash") else decode(data, *more)
"""


def test_a_decoder_that_crashes_harms_its_own_row_alone(visitor, predictor, pictures, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    predictor.reader.end()  # the next one reads the line above
    good = pictures[0].read_bytes()
    rows = visitor.drop({"a.png": good, "b.png": good + b"crash", "c.png": good})
    shown = visitor.wait(rows)
    assert [row["status"] for row in shown] == ["scored", "unreadable", "scored"]
    assert shown[1]["record"]["reasons"] == ["unreadable: its decoder crashed (SIGABRT)"]
    corrected = visitor.client.put(f"/rows/{rows[1]}/label", json={"label": "real"})
    assert corrected.status_code == 409  # and is not read in this process
    predictor.reader.end()


def test_a_model_that_fails_on_one_file_judges_the_others(visitor, predictor, pictures, monkeypatch):
    judged = type(predictor).scored

    def fails(self, images):
        if any(image.shape != (SIZE, SIZE, 3) or (image == 255).all() for image in images):
            raise RuntimeError("out of\nmemory")
        return judged(self, images)

    monkeypatch.setattr(type(predictor), "scored", fails)
    white = cv2.imencode(".png", np.full((40, 40, 3), 255, np.uint8))[1].tobytes()
    files = {"a.png": pictures[0].read_bytes(), "white.png": white, "c.png": pictures[1].read_bytes()}
    shown = {row["name"]: row for row in visitor.wait(visitor.drop(files))}
    assert shown["white.png"]["state"] == "refused"
    assert shown["white.png"]["note"] == "it cannot be judged: out of memory"
    assert (shown["a.png"]["state"], shown["c.png"]["state"]) == ("done", "done")
    (record,) = visitor.client.post("/predict", files=[("files", ("white.png", white))]).json()
    assert (record["status"], record["verdict"]) == ("unreadable", "unsure")


def test_a_record_that_cannot_be_written_harms_its_row_alone(visit, pictures, monkeypatch):
    with visit() as visitor:
        finish = visitor.page.store.finish

        def strange(row, record, *more):
            if record.file == "b.png":
                raise ValueError("Out of range float values are not JSON compliant")
            finish(row, record, *more)

        monkeypatch.setattr(visitor.page.store, "finish", strange)
        rows = visitor.drop({name: pictures[0].read_bytes() for name in ("a.png", "b.png", "c.png")})
        assert [row["state"] for row in visitor.wait(rows)] == ["done", "refused", "done"]


def test_a_full_disk_delays_verdicts_and_loses_none(visit, pictures, monkeypatch):
    monkeypatch.setattr(scoring_thread, "PAUSE", 0.01)
    refusals = [sqlite3.OperationalError("database or disk is full")] * 5
    with visit() as visitor:
        written = visitor.page.store.change

        def full(*arguments, **values):
            if refusals and "state" in values and values["state"] in ("done", "refused"):
                raise refusals.pop()
            return written(*arguments, **values)

        monkeypatch.setattr(visitor.page.store, "change", full)
        shown = visitor.wait(visitor.drop({file.name: file.read_bytes() for file in pictures[:3]}))
        assert not refusals
        assert [row["verdict"] is not None for row in shown] == [True] * 3
        assert visitor.client.get("/state").json()["trouble"] is None


def test_a_row_has_pictures_and_shows_where_the_model_looked(visitor, pictures):
    (row,) = visitor.wait(visitor.drop({"face.png": pictures[0].read_bytes()}))
    shown = row["pictures"]
    assert (shown["width"], shown["height"]) == (96, 96)
    (crop,) = shown["crops"]
    for name, magic in (
        (shown["preview"], b"\xff\xd8"),
        (crop["image"], b"\xff\xd8"),
        (crop["heat"], b"\x89PNG"),
    ):
        answer = visitor.client.get(f"/rows/{row['id']}/pictures/{name}")
        assert answer.content.startswith(magic)
    for name in ("..%2f..%2fpage.sqlite3", "%2e%2e%2fpage.sqlite3", "nothing.jpg"):
        assert visitor.client.get(f"/rows/{row['id']}/pictures/{name}").status_code == 404


def test_stability_is_asked_for_by_batch(visitor, pictures):
    content = pictures[0].read_bytes()
    with_it = visitor.drop({"a.png": content}, stability=True)
    without = visitor.drop({"b.png": content})
    one, other = visitor.wait(with_it + without)
    assert one["same"] is not None
    assert len(one["record"]["stability"]["deliveries"]) >= 5
    assert (other["same"], other["record"]["stability"]) == (None, None)


def test_downloads_hold_what_is_finished(visitor, pictures):
    rows = visitor.drop({"=1+1.png": pictures[0].read_bytes(), "b.png": pictures[1].read_bytes()})
    visitor.wait(rows)
    more = visitor.drop({"c.png": pictures[2].read_bytes()})
    visitor.wait(more)
    table = list(csv.DictReader(io.StringIO(visitor.client.get("/records.csv").text)))
    assert [line["file"] for line in table] == ["'=1+1.png", "b.png", "c.png"]
    assert all(line["verdict"] for line in table)
    batch = visitor.client.get(f"/rows/{more[0]}").json()["batch"]
    answer = visitor.client.get(f"/records.json?batch={batch}")
    assert answer.headers["content-disposition"] == f'attachment; filename="records_batch_{batch}.json"'
    (found,) = answer.json()["batches"]
    assert [record["file"] for record in found["records"]] == ["c.png"]
    assert found["judged_by"]["weights"] == "effort.pth"


def test_programs_find_the_page_described(visitor):
    described = visitor.client.get("/openapi.json").json()
    assert {"/predict", "/records.csv", "/batches"} <= set(described["paths"])
    assert "stability" in described["components"]["schemas"]["FileRecord"]["properties"]
    assert [visitor.client.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]


def test_what_a_program_asked_is_removed_unless_it_shall_stay(visitor, pictures):
    sent = [("files", (pictures[0].name, pictures[0].read_bytes()))]
    assert visitor.client.post("/predict", files=sent).status_code == 200
    assert visitor.client.get("/state").json()["batches"] == []
    assert visitor.client.post("/predict?keep=true", files=sent).status_code == 200
    assert len(visitor.client.get("/state").json()["rows"]) == 1


def test_evidence_is_made_when_it_is_asked_for_and_stays(visit, pictures):
    with visit() as before:
        (row,) = before.drop({"holiday/face.png": pictures[0].read_bytes()})
        before.wait([row])
        page = before.client.get(f"/rows/{row}/evidence.html")
        assert page.headers["content-disposition"].startswith("attachment")
        assert "face.png" in page.text
        data = before.client.get(f"/rows/{row}/evidence.json").json()
        assert data["record"]["sha256"] == before.client.get(f"/rows/{row}").json()["record"]["sha256"]
    with visit() as after:
        assert after.client.get(f"/rows/{row}/evidence.html").text == page.text
        (other,) = after.announce({"b.png": b"1"})
        assert after.client.get(f"/rows/{other}/evidence.html").status_code == 409
