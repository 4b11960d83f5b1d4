"""The command: what is missing is run, also after a kill; one table of it in six formats."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toyhost
import yaml
from sklearn.metrics import precision_recall_fscore_support
from toyhost import IN_HOST, link_host, list_videos, noise
from toytower import SIZE, save_toy_weights

from effort_finetune.cli.main import main
from effort_finetune.config import Settings
from effort_finetune.evaluate import evaluation, results
from effort_finetune.evaluate.kept_model import KeptModel
from effort_finetune.evaluate.score_file import read_scores
from effort_finetune.studies.board_formats import FORMATS
from effort_finetune.train import finetuning

SMALL = {
    "resolution": SIZE,
    "head_width": 16,
    "workers": 0,
    "bootstrap_samples": 20,
    "device": "cpu",
    "precision": "float32",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A host with two datasets, and random weights."""
    home = tmp_path_factory.mktemp("board")
    root = link_host(home / "host")
    for name in ("UADFV", "roop"):
        labels = {f"{name}_Real": 0, f"{name}_Fake": 1}
        videos = list_videos(name, labels, {"train": 2, "val": 2, "test": 4}, frames=2)
        toyhost.write_dataset(root, name, videos, noise(labels, SIZE), layout=IN_HOST)
    save_toy_weights(home / "effort.pth", seed=1)
    return home


def board_file(folder: Path, home: Path, **changes) -> Path:
    tree = {
        "title": "A & B",
        "host": str(home / "host"),
        "detectors": [
            {"name": "before_50%", "weights": str(home / "effort.pth")},
            {
                "name": "after",
                "weights": str(home / "effort.pth"),
                "finetune": {
                    "train_dataset": ["UADFV"],
                    "nEpochs": 1,
                    "train_batchSize": 4,
                    "select_on": "last",
                },
            },
        ],
        "datasets": ["UADFV", "roop"],
        "seeds": [1, 2],
        "metrics": ["video_auc", "frame_f1"],
        "settings": SMALL,
    }
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}))
    return path


class Counted:
    """Counts what is run, and does something at one of them."""

    def __init__(self, monkeypatch, at: int = -1, action=lambda: None) -> None:
        self.calls: list[str] = []
        for module, name in ((evaluation, "evaluate"), (finetuning, "finetune")):
            monkeypatch.setattr(module, name, self._wrapped(name, getattr(module, name)))
        self.at, self.action = at, action

    def _wrapped(self, name, function):
        def wrapper(*args, **kwargs):
            self.calls.append(name)
            if len(self.calls) - 1 == self.at:
                self.action()
            return function(*args, **kwargs)

        return wrapper


@pytest.fixture(scope="module")
def done(home, tmp_path_factory) -> Path:
    """A board that was stopped by SIGTERM on its way, and brought to its end by the same command."""
    folder = tmp_path_factory.mktemp("done")
    path = board_file(folder, home)
    with pytest.MonkeyPatch.context() as patch:
        first = Counted(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["leaderboard", str(path)]) == 1
        assert first.calls == ["evaluate", "evaluate", "finetune", "evaluate"]
    with pytest.MonkeyPatch.context() as patch:
        second = Counted(patch)
        assert main(["leaderboard", str(path)]) == 0
        assert second.calls == ["evaluate", "evaluate", "finetune", "evaluate", "evaluate"]
    return folder / "board"


def table(folder: Path) -> dict:
    return json.loads((folder / "leaderboard.json").read_text())


def test_what_is_there_is_not_run_again(done, home, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in done.glob("leaderboard.*")}
    counted = Counted(monkeypatch)
    assert main(["leaderboard", str(done.with_name("board.yaml"))]) == 0
    assert counted.calls == []
    assert {path: path.read_bytes() for path in done.glob("leaderboard.*")} == before
    assert "before_50%" in capsys.readouterr().out
    assert main(["leaderboard", str(done.with_name("board.yaml")), "--dry-run"]) == 0
    assert "8 of 8 runs are there; 0 to do" in capsys.readouterr().out


def test_the_numbers_are_those_of_the_cells_and_scikit_learns(done):
    document = table(done)
    names = [column["name"] for column in document["columns"]]
    assert names == ["UADFV", "roop", "average"]
    assert [column["in_domain"] for column in document["columns"][:2]] == [True, False]
    before, after = document["rows"]
    assert (before["detector"], before["seeds"], after["seeds"]) == ("before_50%", 1, 2)
    cells = {}
    for row in document["rows"]:
        for name in ("UADFV", "roop"):
            folders = sorted(
                (done / "cells").glob(f"{row['detector'].replace('%', '%25')}/{name}/*/results.json")
            )
            documents = [results.read(path) for path in folders]
            assert row["cells"]["video_auc"][name]["values"] == [
                d["datasets"][name]["video"]["auc"] for d in documents
            ]
            f1 = []
            for path, own in zip(folders, documents, strict=True):
                scores = read_scores(path.parent / own["datasets"][name]["scores"])
                verdict = scores.prob > 0.5
                expected = precision_recall_fscore_support(
                    scores.label, verdict, average="binary", zero_division=0
                )
                block = own["datasets"][name]["frame"]
                assert [block[k] or 0 for k in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
                f1.append(block["f1"])
            assert row["cells"]["frame_f1"][name]["mean"] == pytest.approx(np.mean(f1))
            cells[row["detector"], name] = row["cells"]["video_auc"][name]
        averaged = row["cells"]["video_auc"]["average"]["mean"]
        assert averaged == pytest.approx(
            np.mean([cells[row["detector"], n]["mean"] for n in ("UADFV", "roop")])
        )
    for name in names:
        marks = [row["cells"]["video_auc"][name]["mark"] for row in document["rows"]]
        assert "best" in marks
        assert all(row["cells"]["frame_f1"][name]["mark"] is None for row in document["rows"])
    assert cells["after", "UADFV"]["deviation"] == pytest.approx(
        np.std(cells["after", "UADFV"]["values"], ddof=1)
    )


def test_every_format_is_written_and_latex_is_escaped(done):
    assert {path.suffix[1:] for path in done.glob("leaderboard.*")} == set(FORMATS.values())
    tex = (done / "leaderboard.tex").read_text()
    tabulars = tex.split(r"\begin{tabular}")[1:]
    assert len(tabulars) == 2
    for block in tabulars:
        columns = block[1 : block.index("}")]
        body = [line for line in block.splitlines() if line.endswith(r"\\")]
        assert all(line.count(" & ") == len(columns) - 1 for line in body)
        assert body[1].startswith(r"before\_50\% &")
    assert all(line.startswith("%") for line in tex.split(r"\begin{tabular}")[0].split("\n") if line)
    assert r"\textbf{" in tex
    page = (done / "leaderboard.html").read_text()
    assert "A &amp; B" in page
    assert "{{" not in page
    with (done / "leaderboard.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    own = [row for row in rows if row["metric"] == "video_auc" and row["column"] == "roop"]
    cells = [row["cells"]["video_auc"]["roop"] for row in table(done)["rows"]]
    assert [float(row["value"]) for row in own] == [cell["mean"] for cell in cells]
    assert [row["mark"] for row in own] == [cell["mark"] for cell in cells]
    markdown = (done / "leaderboard.md").read_text().splitlines()
    lines = [line for line in markdown if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_weights_are_read_once_for_all_datasets(done, home, tmp_path, monkeypatch):
    built = []
    build = evaluation.build
    monkeypatch.setattr(evaluation, "build", lambda settings: built.append(1) or build(settings))
    entry = {"name": "before_50%", "weights": str(home / "effort.pth")}
    assert main(["leaderboard", str(board_file(tmp_path, home, detectors=[entry]))]) == 0
    assert len(built) == 1

    def scores(board: Path) -> dict[str, str]:
        found = [results.read(path) for path in board.glob("cells/before*/*/*/results.json")]
        return {name: block["scores_sha256"] for one in found for name, block in one["datasets"].items()}

    assert scores(tmp_path / "board") == scores(done) != {}


def test_a_kept_model_is_that_of_these_settings_and_of_this_file(home, tmp_path):
    weights = tmp_path / "a.pth"
    shutil.copy(home / "effort.pth", weights)
    kept, made = KeptModel(), []

    def get(**changes):
        settings = Settings(**{"resolution": SIZE, "pretrained_weights": str(weights), **changes})
        kept.get(settings, None, lambda: made.append(1) or torch.nn.Identity())
        return len(made)

    assert (get(), get(), get(test_dataset=("UADFV",))) == (1, 1, 1)
    assert (get(residual_rank=2), get(residual_rank=2), get()) == (2, 2, 3)
    shutil.copy(home / "effort.pth", tmp_path / "b.pth")
    os.replace(tmp_path / "b.pth", weights)
    assert get() == 4
    kept.drop()
    assert get() == 5
    assert (get(pretrained_weights=str(tmp_path)), get(pretrained_weights=str(tmp_path))) == (6, 7)


def test_other_settings_and_other_weights_are_other_cells(done, home, tmp_path, monkeypatch):
    shutil.copytree(done, tmp_path / "board")
    shutil.copy(home / "effort.pth", tmp_path / "effort.pth")
    entry = {"name": "before_50%", "weights": "effort.pth"}
    path = board_file(tmp_path, home, detectors=[entry], datasets=["UADFV"])
    counted = Counted(monkeypatch)
    assert main(["leaderboard", str(path)]) == 0  # the same bytes at another place
    assert counted.calls == []
    state = torch.load(tmp_path / "effort.pth", weights_only=True)
    key = next(name for name in state if name.endswith("weight") and "head" in name)
    state[key] += 1
    torch.save(state, tmp_path / "effort.pth")
    assert main(["leaderboard", str(path)]) == 0
    assert counted.calls == ["evaluate"]
    path = board_file(
        tmp_path, home, detectors=[entry], datasets=["UADFV"], settings={**SMALL, "threshold": 0.4}
    )
    assert main(["leaderboard", str(path)]) == 0
    assert counted.calls == ["evaluate"] * 2


def test_a_cell_whose_run_was_cut_short_is_run_again(done, home, tmp_path, monkeypatch):
    shutil.copytree(done, tmp_path / "board")
    path = board_file(tmp_path, home)
    cells = sorted((tmp_path / "board").glob("cells/*/*/*/results.json"))
    cells[0].write_text(cells[0].read_text()[:100])
    document = json.loads(cells[1].read_text())
    cells[1].write_text(json.dumps({**document, "status": "failed", "reason": "killed"}))
    counted = Counted(monkeypatch)
    assert main(["leaderboard", str(path)]) in (0, 1)
    assert counted.calls.count("evaluate") == 2


def test_shares_do_everything_once(home, tmp_path, monkeypatch, capsys):
    entries = [{"name": name, "weights": str(home / "effort.pth")} for name in ("one", "two")]
    path = board_file(tmp_path, home, detectors=entries, datasets=["UADFV"])
    counted = Counted(monkeypatch)
    for number in (1, 2, 3):
        assert main(["leaderboard", str(path), "--shard", f"{number}/3"]) == 0
    assert counted.calls == ["evaluate"] * 2
    assert (tmp_path / "board" / "leaderboard.json").exists()
    assert "1 cells are not there yet" in capsys.readouterr().out


def test_imported_scores_stand_in_the_table_where_the_protocol_is_the_same(done, home, tmp_path, capsys):
    shutil.copytree(done, tmp_path / "board")
    measured = next((done / "cells").glob("before*/UADFV/*"))
    assert main(["export-scores", str(measured), "--output", str(tmp_path / "s.csv")]) == 0
    assert main(["import-scores", str(tmp_path / "s.csv"), "--output_dir", str(tmp_path / "theirs")]) == 0
    entries = [
        {"name": "before_50%", "weights": str(home / "effort.pth")},
        {"name": "theirs", "scores": "theirs"},
    ]
    path = board_file(tmp_path, home, detectors=entries)
    assert main(["leaderboard", str(path)]) == 0
    document = table(tmp_path / "board")
    ours, theirs = (row["cells"]["video_auc"]["UADFV"] for row in document["rows"])
    assert ours["mean"] == theirs["mean"]
    assert {ours["mark"], theirs["mark"]} == {"best", "not told from the best"}
    assert document["rows"][1]["cells"]["video_auc"]["roop"]["mean"] is None
    assert document["rows"][1]["cells"]["video_auc"]["average"]["reason"] == "no value of roop"
    rows = (tmp_path / "s.csv").read_text().splitlines()
    (tmp_path / "half.csv").write_text("\n".join([rows[0], *rows[1::2]]) + "\n")  # one frame of each video
    assert main(["import-scores", str(tmp_path / "half.csv"), "--output_dir", str(tmp_path / "theirs")]) == 0
    capsys.readouterr()
    assert main(["leaderboard", str(path)]) == 2
    error = capsys.readouterr().err
    assert "theirs was measured by another protocol" in error
    assert "--allow_mixed_protocols" in error
    assert main(["leaderboard", str(path), "--allow_mixed_protocols"]) == 0
    assert "theirs (other protocol)" in (tmp_path / "board" / "leaderboard.txt").read_text()


def test_a_run_that_fails_does_not_keep_the_others_from_running(home, tmp_path, capsys, monkeypatch):
    original = evaluation.evaluate

    def failing(settings, host, **options):
        if settings.test_dataset == ("UADFV",):
            settings = settings.changed(max_missing_rate=0.0)
            (home / "host/datasets/lmdb/UADFV_lmdb").rename(tmp_path / "away")
        try:
            return original(settings, host, **options)
        finally:
            if (tmp_path / "away").exists():
                (tmp_path / "away").rename(home / "host/datasets/lmdb/UADFV_lmdb")

    monkeypatch.setattr(evaluation, "evaluate", failing)
    path = board_file(tmp_path, home, detectors=[{"name": "one", "weights": str(home / "effort.pth")}])
    assert main(["leaderboard", str(path)]) == 1
    done = capsys.readouterr()
    assert "one, UADFV" in done.err
    row = table(tmp_path / "board")["rows"][0]["cells"]["video_auc"]
    assert row["UADFV"]["mean"] is None
    assert row["roop"]["mean"] is not None
    assert row["average"]["mean"] is None


def test_published_values_stand_beside_and_are_marked(home, tmp_path, capsys):
    path = board_file(
        tmp_path, home, detectors=[{"name": "one", "weights": str(home / "effort.pth")}],
        published=["effort-paper"], published_as={"UADFV": "CDF-v2"}, datasets=["UADFV"],
    )  # fmt: skip
    assert main(["leaderboard", str(path), "--format", "latex"]) == 0
    tex = capsys.readouterr().out
    assert r"Effort (published) & 0.9560 \\" in tex
    assert "table 1" in tex
    rows = {row["detector"]: row for row in table(tmp_path / "board")["rows"]}
    assert rows["Effort"]["kind"] == "published"
    assert rows["Effort"]["source"]["url"] == "https://arxiv.org/abs/2411.15633"
    assert list(rows["Effort"]["cells"]) == ["video_auc"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datasets": []}, ["datasets"]),
        ({"datasets": ["UADFV", "UADFV"]}, ["UADFV twice"]),
        ({"colour": "red"}, ["unknown key", "colour"]),
        ({"detectors": [{"name": "x"}]}, ["'x'", "neither"]),
        ({"detectors": [{"name": "x", "scores": "s", "weights": "w"}]}, ["one of scores, weights"]),
        ({"detectors": [{"name": "x", "scores": "gone"}]}, ["gone", "does not exist"]),
        ({"detectors": [{"name": "x", "weights": "gone.pth"}]}, ["gone.pth", "does not exist"]),
        ({"detectors": [{"name": "x", "weights": "board.yaml"}]}, ["board.yaml"]),
        ({"settings": {"tresholt": 0.3}}, ["tresholt", "board.yaml"]),
        ({"settings": {"output_dir": "x"}}, ["output_dir", "leaves open"]),
        ({"metrics": ["video_auk"]}, ["video_auk"]),
        ({"seeds": [1, -1]}, ["seeds"]),
        ({"in_domain": ["DFDC"]}, ["DFDC", "no column"]),
        ({"published": ["effort-papper"]}, ["effort-paper"]),
        ({"datasets": ["./nowhere"]}, ["nowhere"]),
        ({"detectors": [{"name": "x", "weights": "w", "finetune": {"nEpochs": 1}}]}, ["no train_dataset"]),
    ],
)  # fmt: skip
def test_bad_boards_are_said_before_anything_runs(home, tmp_path, capsys, monkeypatch, changes, words):
    path = board_file(tmp_path, home, **changes)
    counted = Counted(monkeypatch)
    assert main(["leaderboard", str(path)]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert counted.calls == []
    assert not (tmp_path / "board").exists()


def test_a_mistake_is_found_before_torch_is_imported(home, tmp_path):
    path = board_file(tmp_path, home, detectors=[{"name": "x", "weights": "gone.pth"}])
    code = "import sys; from effort_finetune.cli.main import main; c = main(sys.argv[1:])"
    code += "; sys.exit(c if 'torch' not in sys.modules else 9)"
    done = subprocess.run(
        [sys.executable, "-c", code, "leaderboard", str(path)], capture_output=True, check=False
    )
    assert done.returncode == 2
