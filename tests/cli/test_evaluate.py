"""evaluate, compare and report as a user runs them: processes, exit codes, one line an error."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import toyhost
from toyhost import EMBEDDED, IN_HOST, frame_paths, link_host, list_videos, noise
from toytower import SIZE, save_toy_weights

from effort_finetune.cli.main import main
from effort_finetune.evaluate import results


def write_dataset(root: Path, name: str, *, groups=("Real", "Fake"), missing: int = 0, test: int = 3) -> None:
    """A dataset of three frames a video; the first ``missing`` test frames are not in its LMDB."""
    labels = {f"{name}_{group}": label for label, group in enumerate(groups)}
    videos = list_videos(name, labels, {"train": 1, "test": test})
    absent = frame_paths(videos, "test")[:missing]
    toyhost.write_dataset(root, name, videos, noise(labels, SIZE), layout=IN_HOST, leave_out=absent)


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Path:
    """The embedded host's code with toy datasets under names its label_dict knows."""
    root = link_host(tmp_path_factory.mktemp("host"))
    write_dataset(root, "UADFV")
    write_dataset(root, "roop")
    write_dataset(root, "DFDC", missing=2)
    write_dataset(root, "DemoA", groups=("Real", "Other"))
    write_dataset(root, "DemoB", test=0)
    write_dataset(root, "DemoC")
    (root / "datasets" / "lmdb" / "DemoC_lmdb").rename(root / "elsewhere")
    save_toy_weights(root / "weights.pth", seed=1)
    return root


def command(host: Path, folder: Path, *datasets: str, weights: object = None) -> list[str]:
    return [
        "--detector_config", str(host / "training/config/detector/effort_finetune.yaml"),
        "--weights", str(weights or host / "weights.pth"),
        "--test_dataset", *datasets,
        "--output_dir", str(folder),
        "--resolution", str(SIZE), "--head_width", "16", "--workers", "0", "--bootstrap_samples", "20",
    ]  # fmt: skip


def process(*arguments: str, host: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEEPFAKEBENCH_ROOT": str(host), "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def evaluated(host, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The guide's command, by the guide's script."""
    folder = tmp_path_factory.mktemp("out") / "evaluation_results"
    script = str(host / "training" / "evaluate_finetune.py")
    return folder, process(sys.executable, script, *command(host, folder, "UADFV", "roop"), host=host)


def test_the_guides_command_writes_everything(evaluated, host):
    folder, done = evaluated
    assert done.returncode == 0, done.stderr
    assert {p.name for p in folder.iterdir()} == {
        "evaluation.log",
        "results.json",
        "settings.yaml",
        "report.html",
        "scores",
    }
    document = json.loads((folder / "results.json").read_text())
    jsonschema.validate(document, results.schema())
    assert list(document["datasets"]) == ["UADFV", "roop"]
    assert document["datasets"]["UADFV"]["host_metrics"]["values"]["auc"] == pytest.approx(
        document["datasets"]["UADFV"]["frame"]["auc"]
    )
    with (folder / "scores" / "roop.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 18
    assert re.search(r"^UADFV +video", done.stdout, re.MULTILINE)
    assert str(folder / "results.json") in done.stdout


def test_stderr_is_silent_where_there_is_no_terminal(evaluated):
    assert evaluated[1].stderr == ""


def test_the_settings_file_gives_the_same_settings_again(evaluated, host, tmp_path, warm):
    folder, _ = evaluated
    arguments = command(host, tmp_path / "out", "UADFV", "roop")
    arguments[1] = str(folder / "settings.yaml")
    done = process(f"{warm}/effort-finetune", "evaluate", *arguments[:-8], host=host)
    assert done.returncode == 0, done.stderr
    first, second = (results.read(path) for path in (folder, tmp_path / "out"))
    assert first["settings_digest"] == second["settings_digest"]
    assert first["datasets"]["UADFV"]["video"] == second["datasets"]["UADFV"]["video"]


def test_compare_and_report(evaluated, tmp_path, capsys, host):
    folder = str(evaluated[0])
    assert main(["compare", folder, folder, "--labels", "one", "two", "--metrics", "video_auc", "eer"]) == 0
    out = capsys.readouterr().out
    assert "frame_eer" in out
    assert out.splitlines()[0].split()[:6] == ["dataset", "metric", "run", "first", "this", "change"]
    page = tmp_path / "report.html"
    assert main(["report", folder, folder, "--output", str(page), "--host", str(host)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert "data:image/png;base64," in page.read_text()


def test_compare_says_what_taints_a_number(evaluated, tmp_path, capsys):
    document = json.loads((evaluated[0] / "results.json").read_text())
    document["datasets"]["roop"]["warnings"].append("an oracle: the labels of the test sets chose it")
    (tmp_path / "results.json").write_text(json.dumps(document))
    (tmp_path / "scores").symlink_to(evaluated[0] / "scores")
    assert main(["compare", str(evaluated[0]), str(tmp_path), "--labels", "honest", "chosen"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "warning: roop of chosen: an oracle: the labels of the test sets chose it"


def test_a_report_without_the_host_says_why_there_are_no_crops(evaluated, tmp_path, capsys):
    page = tmp_path / "report.html"
    copy = tmp_path / "results.json"
    document = json.loads((evaluated[0] / "results.json").read_text())
    document["settings"]["dataset_json_folder"] = str(tmp_path / "gone")
    copy.write_text(json.dumps(document))
    (tmp_path / "scores").symlink_to(evaluated[0] / "scores")
    assert main(["report", str(copy), "--output", str(page), "--host", str(EMBEDDED)]) == 0
    assert "Crops are not shown" in page.read_text()


def run_main(capsys, arguments) -> tuple[int, list[str]]:
    code = main(arguments)
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("datasets", "weights", "words"),
    [
        (["UADVF"], None, ["UADVF", "UADFV"]),
        (["DemoC"], None, ["DemoC_lmdb"]),
        (["DemoA"], None, ["DemoA_Other"]),
        (["DemoB"], None, ["DemoB", "test"]),
        (["UADFV"], "missing.pth", ["missing.pth"]),
        (["UADFV"], "README.md", ["README.md"]),
    ],
    ids=["unknown dataset", "no LMDB", "unknown label", "empty split", "no weights file", "no checkpoint"],
)
def test_bad_input_is_one_line_and_exit_code_2(host, tmp_path, capsys, datasets, weights, words, monkeypatch):
    monkeypatch.setenv("DEEPFAKEBENCH_ROOT", str(host))
    if weights is not None:
        (tmp_path / "README.md").write_text("# no tensors here\n")
        weights = tmp_path / weights
    code, lines = run_main(capsys, ["evaluate", *command(host, tmp_path / "out", *datasets, weights=weights)])
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words)
    assert not list(tmp_path.glob("out/*.json"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--treshold", "0.4"], ["--treshold", "threshold"]),
        (["--threshold", "1.5"], ["threshold", "1.5"]),
        (["--precision", "fp16", "--device", "cpu"], ["fp16"]),
        (["--device", "toaster"], ["toaster"]),
    ],
)
def test_bad_flags(host, tmp_path, capsys, flags, words, monkeypatch):
    monkeypatch.setenv("DEEPFAKEBENCH_ROOT", str(host))
    code, lines = run_main(capsys, ["evaluate", *command(host, tmp_path / "out", "UADFV"), *flags])
    assert code == 2
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)


def test_an_output_folder_that_cannot_be_written(host, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DEEPFAKEBENCH_ROOT", str(host))
    (tmp_path / "file").write_text("")
    code, lines = run_main(capsys, ["evaluate", *command(host, tmp_path / "file" / "out", "UADFV")])
    assert code == 2
    assert len(lines) == 1
    assert "output" in lines[0]


def test_too_many_missing_frames_end_with_1_and_are_listed(host, tmp_path, warm):
    arguments = command(host, tmp_path / "out", "UADFV", "DFDC")
    done = process(f"{warm}/effort-finetune", "evaluate", *arguments, host=host)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "2 of 18 test frames of DFDC" in done.stderr
    document = results.read(tmp_path / "out")
    assert document["status"] == "failed"
    assert document["datasets"]["UADFV"]["status"] == "complete"
    assert len(document["datasets"]["DFDC"]["missing"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "gone.json"], ["gone.json", "does not exist"]),
        (["compare", "gone.json", "--metrics", "video_auk"], ["--metrics", "video_auc"]),
        (["compare", "a", "b", "--labels", "x"], ["--labels"]),
        (["report", "gone.json"], ["gone.json"]),
    ],
)
def test_bad_results_files(capsys, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines = run_main(capsys, arguments)
    assert code == 2
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)
