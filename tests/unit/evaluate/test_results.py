"""The results file: what evaluate writes, the schema it keeps, and what is refused."""

from __future__ import annotations

import copy
import json
import logging
import re
import subprocess

import jsonschema
import pytest
import yaml

import effort_finetune
from effort_finetune.core.errors import RunFailure, UserError, UserErrors
from effort_finetune.evaluate import provenance, results
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.table import protocol_differences, results_table
from effort_finetune.host import open_host

from .bench import Bench
from .conftest import EMBEDDED


def evaluate_two(bench, checkpoint, folder):
    """Evaluates the tiny checkpoint on two datasets."""
    bench.write("ToyA")
    bench.write("ToyB", videos=2)
    settings = bench.settings(test_dataset=["ToyA", "ToyB"])
    evaluate(settings, bench.host, weights=checkpoint, output_dir=folder, command=["evaluate", "--x"])
    return folder


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    return evaluate_two(Bench(open_host(EMBEDDED), folder / "data"), checkpoint, folder / "out")


def test_everything_is_there_and_fits_the_schema(run):
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert names == {
        "evaluation.log",
        "results.json",
        "settings.yaml",
        "report.html",
        "scores/ToyA.csv",
        "scores/ToyB.csv",
    }
    document = json.loads((run / "results.json").read_text())
    jsonschema.Draft202012Validator(results.schema()).validate(document)
    assert document["status"] == "complete"
    assert document["command"] == ["evaluate", "--x"]
    assert list(document["datasets"]) == ["ToyA", "ToyB"]
    assert document["checkpoint"]["layout"] == "deepfakebench"
    assert re.fullmatch("[0-9a-f]{64}", document["checkpoint"]["sha256"])
    assert document["code"]["version"] == effort_finetune.__version__
    assert document["host"]["kind"] == "embedded"
    assert document["protocol"]["confidence_intervals"]["samples"] == 50
    assert yaml.safe_load((run / "settings.yaml").read_text()) == document["settings"]


def test_the_log_holds_weights_batches_and_the_table(run):
    log = (run / "evaluation.log").read_text()
    assert "deepfakebench, SHA-256" in log
    assert "ToyA: batch 1, 7 frames" in log
    assert "ToyB: video AUC" in log
    assert logging.getLogger("effort_finetune").handlers == []


def test_a_second_evaluation_gives_the_same_numbers(run, bench, checkpoint, tmp_path, capsys):
    again = evaluate_two(bench, checkpoint, tmp_path / "again")
    assert re.search(r"average +video +\d", capsys.readouterr().out)
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (run, again))
    for name, block in first["datasets"].items():
        for key in ("counts", "frame", "video", "loss", "host_metrics"):
            assert block[key] == second["datasets"][name][key]
    assert (run / "scores/ToyA.csv").read_bytes() == (again / "scores/ToyA.csv").read_bytes()


def test_too_many_missing_frames_leave_a_failed_results_file(bench, checkpoint, tmp_path):
    bench.write("ToyA", missing=[0, 1])
    with pytest.raises(RunFailure, match=r"results\.json"):
        evaluate(
            bench.settings(test_dataset=["ToyA"]), bench.host, weights=checkpoint, output_dir=tmp_path / "out"
        )
    document = results.read(tmp_path / "out")
    assert document["status"] == "failed"
    assert "2 of 24 test frames" in document["reason"]
    assert len(document["datasets"]["ToyA"]["missing"]) == 2


def test_an_interrupt_saves_what_there_is(bench, checkpoint, tmp_path, monkeypatch):
    from effort_finetune.evaluate import evaluation as module

    def interrupted(model, dataset, settings, *, desc, **options):
        if desc == "ToyB":
            raise KeyboardInterrupt
        return score(model, dataset, settings, desc=desc, **options)

    score = module.score_dataset
    monkeypatch.setattr(module, "score_dataset", interrupted)
    bench.write("ToyA")
    bench.write("ToyB")
    with pytest.raises(RunFailure, match="interrupted"):
        evaluate(
            bench.settings(test_dataset=["ToyA", "ToyB"]),
            bench.host,
            weights=checkpoint,
            output_dir=tmp_path / "out",
        )
    document = results.read(tmp_path / "out")
    assert document["status"] == "failed"
    assert document["datasets"]["ToyA"]["status"] == "complete"


def test_user_errors_come_together_and_before_anything_is_written(bench, tmp_path):
    bench.write("ToyA")
    with pytest.raises(UserErrors) as caught:
        evaluate(
            bench.settings(test_dataset=["ToyX"]),
            bench.host,
            weights=tmp_path / "none.pth",
            output_dir=tmp_path / "out",
        )
    text = str(caught.value)
    assert "none.pth" in text
    assert "ToyX" in text
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_a_user_error(bench, checkpoint, tmp_path):
    bench.write("ToyA")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="output folder"):
        evaluate(
            bench.settings(test_dataset=["ToyA"]),
            bench.host,
            weights=checkpoint,
            output_dir=tmp_path / "file",
        )


def test_the_table_says_why_there_is_no_auc(document):
    document["datasets"]["ToyA"]["video"].update(auc=None, null_reasons={"auc": "no real samples"})
    assert "ToyA: no video AUC, no real samples" in results_table(document)


def test_compared_runs_that_scored_other_frames_are_told_apart(document):
    other = json.loads(json.dumps(document))
    other["protocol"]["checkpoint_selected_on"] = "val"  # of the first one it is not known
    assert protocol_differences([document, other], ["a", "b"]) == []
    other["protocol"]["confidence_intervals"]["seed"] = 7
    other["datasets"]["ToyA"]["counts"].update(frames_scored=23)
    assert protocol_differences([document, other], ["a", "b"]) == [
        "intervals stated by the files differ in confidence_intervals.seed: a 1024, b 7",
        "ToyA differs in what was scored: a 24 frames of 8 videos, b 23 frames of 8 videos",
    ]


def test_no_weights_at_all_is_a_user_error(bench, tmp_path):
    bench.write("ToyA")
    with pytest.raises(UserError, match="--weights"):
        evaluate(bench.settings(test_dataset=["ToyA"]), bench.host, weights=None, output_dir=tmp_path)


def test_weights_that_are_no_checkpoint_are_a_user_error(bench, tmp_path):
    bench.write("ToyA")
    (tmp_path / "text.pth").write_text("no tensors here")
    with pytest.raises(UserError):
        evaluate(
            bench.settings(test_dataset=["ToyA"]),
            bench.host,
            weights=tmp_path / "text.pth",
            output_dir=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


@pytest.fixture
def document(run):
    return results.read(run)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.update(status="done"), "status"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d["datasets"]["ToyA"]["video"].update(auc=1.5), "video/auc"),
        (lambda d: d["datasets"]["ToyA"]["video"].update(auc=None), "null and its reason go together"),
        (lambda d: d["datasets"]["ToyA"]["video"]["null_reasons"].update(auc="x"), "null and its reason"),
        (lambda d: d["datasets"]["ToyA"].update(frame=None), "frame"),
        (lambda d: d["datasets"]["ToyA"]["counts"].pop("frames_missing"), "frames_missing"),
        (lambda d: d.update(status="failed"), "reason"),
        (lambda d: d["checkpoint"].update(sha256="abc"), "sha256"),
    ],
)
def test_a_document_that_breaks_the_schema_is_not_written(document, tmp_path, change, problem):
    broken = copy.deepcopy(document)
    change(broken)
    with pytest.raises(ValueError, match=problem):
        results.write(tmp_path / "x.json", broken)
    assert not (tmp_path / "x.json").exists()


def test_nan_is_not_written(document, tmp_path):
    document["timings"]["total_s"] = float("nan")
    with pytest.raises(ValueError):  # noqa: PT011 -- json's own words
        results.write(tmp_path / "x.json", document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("{", "expected a results.json"),
        ("[1]", "no schema_version"),
        ('{"schema_version": "2.0"}', "schema_version '2.0'"),
        ('{"schema_version": "1.0"}', r"schema\.json"),
    ],
)
def test_what_is_no_results_file_is_a_user_error(tmp_path, text, message):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=message):
        results.read(tmp_path / "results.json")


def test_the_commit_is_the_packages_and_not_the_working_directorys(tmp_path, monkeypatch):
    here = provenance.code_version()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert provenance.code_version() == here


def test_a_repository_that_does_not_track_the_package_says_nothing(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "site" / "effort_finetune").mkdir(parents=True)
    (tmp_path / "site" / "effort_finetune" / "__init__.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site/effort_finetune/evaluate/provenance.py"))
    version = provenance.code_version()
    assert version["commit"] is None
    assert version["dirty"] is None
