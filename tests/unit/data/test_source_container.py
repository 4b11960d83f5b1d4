"""What the files told that crops were made of is known after the crops are all alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from effort_finetune.data import confounds
from effort_finetune.data.check import DatasetReport, check_dataset
from effort_finetune.data.class_words import ClassWords
from effort_finetune.data.crop_dataset import crop_dataset
from effort_finetune.data.crop_options import CropOptions
from effort_finetune.data.crop_sources import find_sources
from effort_finetune.data.folder import index_crops
from effort_finetune.data.frames import open_frames
from effort_finetune.data.index import DatasetIndex
from effort_finetune.data.source_container import source_container, source_score

from .conftest import Bench
from .test_videos import write_several, write_video

OPTIONS = CropOptions(without="cropped", count=3, size=16)
RATIOS = {"train": 0.1, "val": 0.0, "test": 0.9}
IDS = [f"M_{label}/{number}" for label in ("Real", "Fake") for number in range(12)]
VIDEOS = 14  # of each class


def test_what_a_file_tells(tmp_path: Path) -> None:
    film = source_container(write_video(tmp_path / "a.avi", 5), video=True)
    assert film is not None
    assert {name: film[name] for name in ("format", "codec", "width", "frames_per_second")} == {
        "format": "AVI",
        "codec": "MJPG",
        "width": 32,
        "frames_per_second": 25,
    }
    assert film["bytes_per_pixel"] == pytest.approx((tmp_path / "a.avi").stat().st_size / (5 * 32 * 32))
    mp4 = source_container(write_video(tmp_path / "a.mp4", 5), video=True)
    assert mp4 is not None
    assert str(mp4["format"]).startswith("MP4 "), "with the brand of its writer"
    picture = np.zeros((20, 30, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 50])
    still = source_container(tmp_path / "a.jpg", video=False)
    assert still is not None
    assert (still["format"], still["codec"], still["aspect"]) == ("JPEG", "RGB", 1.5)
    assert float(still["jpeg_table"]) > 10
    moving = source_container(write_several(tmp_path / "b.gif", "GIF"), video=True)
    assert moving is not None
    assert moving["format"] == "GIF"
    (tmp_path / "text.mp4").write_bytes(b"text")
    assert source_container(tmp_path / "text.mp4", video=True) is None
    assert source_container(tmp_path / "text.mp4", video=False) is None


@pytest.fixture(autouse=True)
def small_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confounds, "_TREES", 8)  # for the suite's time


def build(bench: Bench, suffix: Callable[[str, int], str]) -> None:
    """Prepares films of both classes, whose pictures are the same and whose containers are not."""
    for label in ("real", "fake"):
        for number in range(VIDEOS):
            folder = bench.root / "films" / ("test" if number < VIDEOS - 1 else "train") / label
            write_video(folder / f"v{number:02d}{suffix(label, number)}", 4 + number % 3)
    crop_dataset(find_sources(bench.root / "films", ClassWords()), bench.root / "rgb/Mine", OPTIONS)


def checked(bench: Bench) -> DatasetReport:
    index_crops(bench.root / "rgb", bench.root / "json", "Mine", ratios={}, seed=1)
    return check_dataset(bench.host, bench.settings(lmdb=False), "Mine")


def test_a_container_that_tells_the_class_is_seen_after_cropping(embedded: Bench) -> None:
    build(embedded, lambda label, _: ".avi" if label == "real" else ".mp4")
    report = checked(embedded)
    (finding,) = (finding for finding in report.findings if finding.kind == "source_confound")
    assert (finding.level, finding.count) == ("warning", 2 * VIDEOS), "each video once, not each crop"
    assert "the files that the crops were made of tell real from fake: AUC 1.000" in finding.message
    assert report.confounds["sources"]["low"] > 0.7
    settings = embedded.settings(lmdb=False)
    test = open_frames(embedded.host, settings, split="test", names=["Mine"]).protocol["datasets"]["Mine"]
    assert test["sources"]["auc"] == 1.0
    assert [words for words in test["warnings"] if "crops were made of" in words]
    train = open_frames(embedded.host, settings, split="train", names=["Mine"]).protocol["datasets"]["Mine"]
    assert "sources" not in train


def test_mixed_containers_accuse_no_one_and_an_older_record_is_completed(embedded: Bench) -> None:
    build(embedded, lambda _, number: ".avi" if number % 2 else ".mp4")
    path = embedded.root / "rgb/Mine/crops.json"
    whole = json.loads(path.read_text())
    for number, source in enumerate(whole["sources"]):  # as an earlier version or somebody's hand left it
        if number % 2:
            source["container"] = {"format": ["list"], "width": float("inf"), "other": 1}
        else:
            del source["container"]
    path.write_text(json.dumps(whole))
    assert "sources" not in checked(embedded).confounds
    found = find_sources(embedded.root / "films", ClassWords())
    again = crop_dataset(found, embedded.root / "rgb/Mine", OPTIONS)
    assert len(again.done_before) == 2 * VIDEOS
    assert all(report.container for report in again.reports)
    report = checked(embedded)
    assert report.confounds["sources"]["pictures"] == 2 * VIDEOS
    assert not any(finding.kind == "source_confound" for finding in report.findings)


@pytest.mark.parametrize("stated", [["a list"], dict.fromkeys(IDS, 3), {"M_Real/0": {"format": None}}, {}])
def test_what_an_index_states_of_sources_is_checked(stated: Any) -> None:
    sources = stated if isinstance(stated, dict) else {}
    index = DatasetIndex("M", "M", Path("M.json"), "c23", {}, sources=sources)
    assert source_score(index, {f"M/{name}": int("Fake" in name) for name in IDS}, seed=0) is None
