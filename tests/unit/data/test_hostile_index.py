"""What an index lists is read only below the folders a user named, from files, and shown escaped."""

from __future__ import annotations

import csv
import os

import cv2
import pytest

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.data.frames import open_frames
from effort_finetune.data.index import Video
from effort_finetune.data.sources import FileSource

from .conftest import Bench, picture


def listed(*frames: str) -> Video:
    return Video("UADFV", "UADFV_Real", "UADFV_Real", None, "0", "test", frames)


@pytest.mark.parametrize(
    "path",
    ["..\\..\\secret\\000.png", "UADFV/../../../secret/000.png", "{outside}/000.png", "/etc/hostname"],
)
def test_paths_outside_the_roots_are_refused_unless_they_are_allowed(embedded: Bench, tmp_path, path) -> None:
    path = path.format(outside=tmp_path / "elsewhere")
    good = "UADFV/real/frames/0/000.png"
    images = embedded.write([listed(good, path)])
    embedded.write_files({good: next(iter(images.values()))})
    settings = embedded.settings(lmdb=False)
    with pytest.raises(UserError, match="1 of 2 frames .* outside its folders"):
        open_frames(embedded.host, settings, split="test", names=["UADFV"])
    allowed = settings.changed(allow_outside_paths=True)
    assert len(open_frames(embedded.host, allowed, split="test", names=["UADFV"])) == 2


def test_only_regular_files_are_frames(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    source = FileSource(str(tmp_path), "as_listed")
    for name in ("pipe.png", "folder.png", "zero.png", "none.png", "nul\0.png"):
        assert source.read(name) is None


def test_names_in_errors_cannot_touch_the_terminal(embedded: Bench) -> None:
    embedded.write([listed("UADFV/real/0/\x1b[2J\n000.png")])
    embedded.write_files({"x": b""})
    with pytest.raises(UserError) as caught:
        open_frames(embedded.host, embedded.settings(lmdb=False), split="test", names=["UADFV"])
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_generators_cannot_touch_the_terminal(tmp_path, capsys) -> None:
    folder = tmp_path / "set" / "fake" / "x\x1b[31m\ny"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "one.png"), picture(0))
    main(["check-data", str(tmp_path / "set")])
    lines = capsys.readouterr().out.splitlines()
    assert sum("fake/x\\x1b[31m" in line for line in lines) == 1
    assert all(line.isprintable() for line in lines)


def test_a_score_file_holds_no_formula_and_reads_back(tmp_path) -> None:
    from effort_finetune.evaluate import score_file

    rows = [
        type("Row", (), {"dataset": "=A1", "video": "@x/'y", "path": "-f\n.png", "label": 1})(),
    ]
    numbers = {name: __import__("numpy").array([value]) for name, value in
               (("index", 0), ("label", 1), ("prob", 0.5), ("logit", -0.25))}  # fmt: skip
    path = score_file.write_scores(tmp_path / "s.csv", rows, type("Scores", (), numbers)())
    with path.open(newline="") as stream:
        cells = list(csv.reader(stream))[1]
    assert [cell[:1] for cell in cells[:3]] == ["'", "'", "'"]
    back = score_file.read_scores(path)
    assert back.video == ("@x/'y",)
    assert back.frame == ("-f\n.png",)
