"""What the benchmark of the intervals keeps of parts that were measured apart."""

from __future__ import annotations

import json

import pytest

from benchmarks import coverage


def test_parts_measured_apart_stand_in_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "truth", lambda *_: dict.fromkeys(coverage.BOUNDED, 0.8))
    output = tmp_path / "coverage.json"

    def part(*arguments: str) -> None:
        common = ("--sets", "2", "--videos", "4+5", "--resamples", "5", "--output", str(output))
        assert coverage.main([*common, *arguments]) == 0

    part("--auc", "0.9", "--levels", "video")
    first = json.loads(output.read_text())["rows"]
    part("--auc", "0.75")
    rows = json.loads(output.read_text())["rows"]
    assert [(row["auc"], row["level"]) for row in rows] == [(0.75, "frame"), (0.75, "video"), (0.9, "video")]
    assert rows[2] == first[0]
    assert rows[0]["metrics"]["auc"]["sets"] == 2
    part("--auc", "0.9", "--levels", "video", "--metrics", "ap", "--sets", "3")
    measured = json.loads(output.read_text())["rows"][2]["metrics"]
    assert {name: found["sets"] for name, found in measured.items()} == {
        **dict.fromkeys(measured, 2),
        "ap": 3,
    }
    assert measured["auc"] == first[0]["metrics"]["auc"]
    # A part measured again takes its own place; one of other options is refused, and nothing is lost.
    part("--auc", "0.9", "--levels", "video")
    assert len(json.loads(output.read_text())["rows"]) == 3
    with pytest.raises(SystemExit, match="other options"):
        coverage.main(["--resamples", "6", "--output", str(output)])
    assert len(json.loads(output.read_text())["rows"]) == 3
