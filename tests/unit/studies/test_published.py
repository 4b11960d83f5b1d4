"""Published numbers: every file that ships reads, names its source, and has the averages of its paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.evaluate.dataset_results import parse_metric
from effort_finetune.studies.published import published_files, read_published, rows_of

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", published_files())
def test_a_file_that_ships_states_where_its_numbers_are_from(name):
    found = read_published(name, HERE)
    for block in found.blocks:
        parse_metric(block.metric)
        assert block.source.url.startswith("https://")
        assert block.source.place
        assert {"trained on", "frames", "checkpoint chosen by"} <= set(block.protocol)
        values = [value for row in block.rows.values() for value in row.values()]
        assert values
        assert all(0.3 < value < 1 for value in values)


@pytest.mark.parametrize(
    ("detector", "average"), [("Effort", 0.917), ("CDFA", 0.878), ("SBI", 0.821), ("LSDA", 0.794)]
)
def test_table_1_has_the_averages_that_the_paper_prints(detector, average):
    rows = {name: row for name, _, row in rows_of(read_published("effort-paper", HERE), "video_auc")}
    assert np.mean(list(rows[detector].values())) == pytest.approx(average, abs=6e-4)


@pytest.mark.parametrize(
    ("detector", "within", "across"),
    [
        ("Meso4", 0.6097, 0.6551),
        ("Face X-ray", 0.9391, 0.6985),
        ("UCF", 0.9527, 0.7801),
        ("SRM", 0.9359, 0.7760),
    ],
)
def test_deepfakebenchs_table_has_the_averages_that_it_prints(detector, within, across):
    rows = {name: row for name, _, row in rows_of(read_published("deepfakebench", HERE), "frame_auc")}
    values = list(rows[detector].values())
    assert (len(rows), len(values)) == (15, 14)
    assert np.mean(values[:6]) == pytest.approx(within, abs=6e-5)
    assert np.mean(values[6:]) == pytest.approx(across, abs=6.5e-5)


def test_dataset_names_of_hosts_are_known():
    found = read_published("effort-paper", HERE)
    row = {name: row for name, _, row in rows_of(found, "video_auc")}["Effort"]
    for name in ("CDF-v2", "Celeb-DF-v2", "celeb-df-v2"):
        assert found.value(row, name) == 0.956
    assert found.value(row, "UADFV") is None


def test_a_file_of_a_users_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "title: mine\nblocks:\n- metric: video_auc\n  source: {title: t, url: u, place: p}\n"
        "  protocol: {frames: '32'}\n  rows: {A: {X: 0.5}}\n"
    )
    assert read_published("mine.yaml", tmp_path).blocks[0].rows["A"]["X"] == 0.5
    (tmp_path / "bad.yaml").write_text("title: mine\nblocks:\n- metric: video_auc\n  rows: {A: {X: much}}\n")
    with pytest.raises(UserError, match=r"bad\.yaml: blocks\.0"):
        read_published("bad.yaml", tmp_path)
    with pytest.raises(UserError, match="effort-paper"):
        read_published("effort-papper", tmp_path)
