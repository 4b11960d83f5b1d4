import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toyhost

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.data.check import EVERY_FRAME, DatasetReport, LabelCount, check_dataset
from effort_finetune.data.index import Video
from effort_finetune.data.write_dataset import write_index

from .conftest import EMBEDDED, LABELS, Bench, pair_of_groups, picture, video


def check(bench: Bench, name: str = "UADFV", decode: int = 0, **flags: Any) -> DatasetReport:
    return check_dataset(bench.host, bench.settings(**flags), name, decode=decode)


def kinds(report: DatasetReport) -> dict[str, str]:
    return {finding.kind: finding.level for finding in report.findings}


def test_a_good_dataset_has_counts_and_no_error(bench: Bench) -> None:
    bench.write(pair_of_groups(3))
    report = check(bench, decode=EVERY_FRAME)
    assert report.ok
    assert report.splits["test"] == {
        "UADFV_Real": LabelCount(videos=3, frames=18),
        "UADFV_Fake": LabelCount(videos=3, frames=18),
    }
    assert report.decoded == 108
    assert report.crop_sizes == {"40x40": 108}
    # Both classes name their folders alike, and each split its videos.
    assert kinds(report) == {"name_collision": "warning", "shared_video_name": "note"}
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_missing_frames_are_all_listed_and_counted_by_label(bench: Bench) -> None:
    videos = pair_of_groups(2)
    gone = videos[0].frames[:2]
    bench.write(videos, leave_out=gone)
    report = check(bench)
    (finding,) = [f for f in report.findings if f.kind == "missing_frames"]
    assert (finding.level, finding.split, finding.count, finding.items) == ("error", "train", 2, sorted(gone))
    assert report.splits["train"]["UADFV_Real"].missing == 2
    assert report.splits["train"]["UADFV_Fake"].missing == 0
    assert kinds(check(bench, max_missing_rate=0.1))["missing_frames"] == "warning"


def test_unreadable_frames_are_found_by_decoding_only(bench: Bench) -> None:
    videos = pair_of_groups(2)
    bench.write(videos, spoil=[videos[-1].frames[3]])
    assert "unreadable_frames" not in kinds(check(bench))
    report = check(bench, decode=EVERY_FRAME)
    (finding,) = [f for f in report.findings if f.kind == "unreadable_frames"]
    assert (finding.level, finding.items) == ("error", [videos[-1].frames[3]])
    assert check(bench, decode=2).decoded == 6


def test_files_are_checked_too(bench: Bench) -> None:
    images = bench.write(pair_of_groups(2))
    gone = sorted(images)[0]
    bench.write_files({path: data for path, data in images.items() if path != gone})
    report = check(bench, lmdb=False)
    assert [f.items for f in report.findings if f.kind == "missing_frames"] == [[gone]]
    assert report.source is not None
    assert report.source["kind"] == "files"


def test_upstreams_uadfv_has_one_set_of_videos_in_all_splits(bench: Bench) -> None:
    bench.write(
        Video("UADFV", v.group, v.group, None, v.name, split, v.frames)
        for v in (video("UADFV_Real", "0"), video("UADFV_Fake", "0"))
        for split in ("train", "val", "test")
    )
    overlaps = [f for f in check(bench).findings if f.kind == "split_overlap"]
    assert [(f.level, f.split, f.count) for f in overlaps] == [
        ("warning", "val", 12),
        ("warning", "test", 12),
        ("warning", "test", 12),
    ]


def test_short_empty_and_one_sided_splits(bench: Bench) -> None:
    bench.write(
        [
            video("UADFV_Real", "0", frames=2),
            video("UADFV_Real", "1", frames=0),
            video("UADFV_Real", "2", "train"),
        ]
    )
    report = check(bench)
    found = {(f.kind, f.split): f.items for f in report.findings}
    assert found["short_videos", "test"] == ["UADFV/UADFV_Real/0 (2)"]
    assert found["no_frames", "test"] == ["UADFV/UADFV_Real/1"]
    assert ("one_class", "test") in found
    assert ("empty_split", "val") in found
    assert report.ok


def test_labels_outside_label_dict(bench: Bench) -> None:
    reals = [replace(v, label_name="Mine") for v in pair_of_groups(1) if v.group == "UADFV_Real"]
    bench.write([*reals, *(v for v in pair_of_groups(1) if v.group == "UADFV_Fake")])
    report = check(bench, label_dict={"mine": 0})
    unknown = [f for f in report.findings if f.kind == "unknown_label"]
    assert [(f.level, f.split) for f in unknown] == [("error", None)], "once, not in every split"
    assert unknown[0].message.startswith("3 videos (1 train, 1 val, 1 test) have the label 'Mine'")
    assert "'Mine', which is not in label_dict (label_dict has mine" in unknown[0].message


def test_frames_twice_names_without_numbers_and_entries_that_are_none(bench: Bench) -> None:
    first = video("UADFV_Real", "0")
    again = Video("UADFV", "UADFV_Real", "UADFV_Real", None, "1", "test", first.frames)
    odd = Video("UADFV", "UADFV_Fake", "UADFV_Fake", None, "2", "test", ("UADFV\\x\\first.png",))
    bench.write([first, again, odd])
    path = bench.root / "json" / "UADFV.json"
    content = json.loads(path.read_text())
    content["UADFV"]["UADFV_Fake"]["train"]["9"] = {"label": "UADFV_Fake"}
    path.write_text(json.dumps(content))
    found = {f.kind: f for f in check(bench).findings}
    assert found["frame_listed_twice"].count == 6
    assert found["frame_name"].items == ["UADFV\\x\\first.png"]
    assert found["malformed"].items[0].startswith("UADFV_Fake/train/9: expected a mapping")


def test_a_broken_index_or_no_lmdb_is_a_finding_and_an_unknown_name_an_error(bench: Bench) -> None:
    write_index(bench.root / "json", "UADFV", pair_of_groups(1))
    report = check(bench)
    assert kinds(report)["source"] == "error"
    assert report.splits["test"]["UADFV_Real"].frames == 6
    (bench.root / "json" / "UADFV.json").write_text("{")
    assert kinds(check(bench)) == {"index": "error"}
    with pytest.raises(UserError, match="did you mean|has no index"):
        check(bench, "UADVF")


def command(bench: Bench, *words: str) -> list[str]:
    yaml = bench.root / "detector.yaml"
    content = {
        "lmdb_dir": str(bench.root / "lmdb"),
        "dataset_json_folder": str(bench.root / "json"),
        "label_dict": LABELS,
        "frame_num": {"train": 4, "test": 4},
    }
    yaml.write_text(json.dumps(content))
    return ["check-data", *words, "--host", str(EMBEDDED), "--detector_config", str(yaml)]


def test_command(embedded: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    videos = pair_of_groups(2)
    embedded.write(videos)
    assert main(command(embedded)) == 0
    assert "UADFV: ok" in capsys.readouterr().out
    embedded.write(videos, leave_out=videos[0].frames)
    assert main(command(embedded, "UADFV", "--decode", "all")) == 1
    out = capsys.readouterr().out
    assert "error: train: 6 of 24 frames (25 %) are missing, above max_missing_rate 0.01" in out
    assert "... 3 more" in out
    assert main(command(embedded, "UADFV", "--json")) == 1
    document = json.loads(capsys.readouterr().out)
    (finding,) = [f for f in document["datasets"]["UADFV"]["findings"] if f["kind"] == "missing_frames"]
    assert finding["items"] == list(videos[0].frames)
    assert main(command(embedded, "--test_dataset", "UADFV", "--train_dataset", "UADFV", "--json")) == 1
    assert list(json.loads(capsys.readouterr().out)["datasets"]) == ["UADFV"]
    for words in (["UADVF"], ["--test_dataset", "UADVF"], ["UADFV", "--decode", "some"]):
        assert main(command(embedded, *words)) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_same_picture_under_two_names_in_two_splits_is_found(embedded: Bench) -> None:
    videos = [
        video(group, name, split, frames=1)
        for split in ("train", "test")
        for group in ("UADFV_Real", "UADFV_Fake")
        for name in ("0", "1")
    ]
    numbers = {item.id + item.split: number for number, item in enumerate(videos)}
    numbers[videos[4].id + "test"] = numbers[videos[1].id + "train"]

    def shown(item: Video, _: int) -> np.ndarray:
        return picture(numbers[item.id + item.split], 64)

    toyhost.write_dataset(embedded.root, "UADFV", videos, shown)
    findings = check_dataset(embedded.host, embedded.settings(), "UADFV").findings
    found = [finding for finding in findings if finding.kind == "near_duplicate"]
    assert [(finding.split, finding.count) for finding in found] == [("test", 1)]
    assert found[0].items == ["UADFV/UADFV_Real/0 = UADFV/UADFV_Real/1"]
