"""A folder that is used again holds the numbers of one run; those of the earlier one are beside it, whole."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.evaluate import results, run_folder
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.evaluate.evaluation_log import evaluation_log
from effort_finetune.evaluate.evaluation_record import output_folder
from effort_finetune.evaluate.run_folder import MEASUREMENT_FILES, archive


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_an_evaluation_into_a_used_folder_keeps_both_whole(bench, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    bench.write("ToyA")
    bench.write("ToyB")

    def run(*datasets):
        settings = bench.settings(test_dataset=list(datasets))
        return evaluate(settings, bench.host, weights=checkpoint, output_dir=out)

    run("ToyA", "ToyB")
    first = names(out)
    capsys.readouterr()
    (out / "notes.txt").write_text("mine")
    (out / "scores" / "mine.csv").write_text("a,b\n1,2\n")
    run("ToyB")
    assert str(out / "earlier_1") in capsys.readouterr().out
    assert names(out / "earlier_1") == first
    assert names(out) - {f"earlier_1/{name}" for name in first} == {
        *("results.json", "report.html", "settings.yaml", "evaluation.log", "scores/ToyB.csv"),
        *("notes.txt", "scores/mine.csv"),
    }
    assert set(results.read(out / "earlier_1")["datasets"]) == {"ToyA", "ToyB"}
    assert set(results.read(out)["datasets"]) == {"ToyB"}
    run("ToyA")
    assert names(out / "earlier_2") == {*MEASUREMENT_FILES, "scores/ToyB.csv"}


def test_an_evaluation_that_cannot_start_moves_nothing(bench, checkpoint, tmp_path):
    out = tmp_path / "out"
    bench.write("ToyA")
    evaluate(bench.settings(test_dataset=["ToyA"]), bench.host, weights=checkpoint, output_dir=out)
    before = names(out)
    with pytest.raises(UserError):
        evaluate(bench.settings(test_dataset=["Gone"]), bench.host, weights=checkpoint, output_dir=out)
    assert names(out) == before


def test_a_folder_without_our_files_is_left_alone(tmp_path):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "mine.csv").write_text("")
    (tmp_path / "results.json").mkdir()  # a folder of that name is none of ours
    assert archive(tmp_path, MEASUREMENT_FILES) is None
    assert names(tmp_path) == {"scores/mine.csv"}


def test_an_empty_scores_folder_does_not_stay_behind(tmp_path):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "A.csv").write_text("dataset,video,frame,label,prob,logit\n")
    assert archive(tmp_path, ()) == tmp_path / "earlier_1"
    assert names(tmp_path) == {"earlier_1/scores/A.csv"}
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", '{"accuracy": 0.9}'),
        ("report.html", "<html>a report of the user's own</html>"),
        ("settings.yaml", "lr: 1"),
        ("ckpt_best.pth", "no checkpoint of ours"),
        ("events.out.tfevents.1", "curves of another program"),
    ],
)
def test_a_users_own_files_are_never_moved(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"got {name}, not written by effort-finetune; .*--output_dir"):
        archive(tmp_path, [name])
    assert names(tmp_path) == {name}
    assert (tmp_path / name).read_text() == content


def test_a_log_of_somebody_elses_stays_and_is_written_on(tmp_path):
    """The guide's evaluate_finetune.py left one in the folder that the guide names."""
    theirs = "2026-01-01 10:00:00,000 - INFO - Evaluation log: evaluation_results/evaluation.log\n"
    (tmp_path / "evaluation.log").write_text(theirs)
    (tmp_path / "results.json").write_text(json.dumps({"schema_version": "2.0", "kind": "evaluation"}))
    assert archive(tmp_path, MEASUREMENT_FILES) == tmp_path / "earlier_1"
    assert names(tmp_path) == {"evaluation.log", "earlier_1/results.json"}
    with evaluation_log(tmp_path):
        logging.getLogger("effort_finetune").warning("ours")
    text = (tmp_path / "evaluation.log").read_text()
    assert text.startswith(theirs)
    assert "ours" in text
    assert archive(tmp_path, MEASUREMENT_FILES) is None


def test_an_output_folder_that_another_process_writes_is_refused_and_left_alone(tmp_path):
    mine = tmp_path / "results.json"
    with ThreadPoolExecutor(1) as other, output_folder(tmp_path):
        mine.write_text(json.dumps({"schema_version": "2.0", "kind": "evaluation"}))
        with pytest.raises(UserError, match="is in use"):
            other.submit(output_folder(tmp_path).__enter__).result()
        assert mine.exists()


def test_what_a_full_disk_left_does_not_bar_the_folder(tmp_path):
    (tmp_path / "evaluation.log").touch()
    assert archive(tmp_path, MEASUREMENT_FILES) == tmp_path / "earlier_1"
    assert names(tmp_path) == {"earlier_1/evaluation.log"}


def test_who_is_killed_while_it_moves_files_leaves_the_rest_recognisable(tmp_path, monkeypatch):
    """Event files say nothing of who wrote them, so that what does is moved after them."""
    wanted = ("settings.yaml", "finetuning.log", "events.out.tfevents.1", "report.html")

    def killed(source, target):
        if len(moved) == stop:
            raise KeyboardInterrupt
        moved.append(source)
        os.replace(source, target)

    monkeypatch.setattr(run_folder.shutil, "move", killed)
    for stop in range(len(wanted)):
        folder = tmp_path / str(stop)
        folder.mkdir()
        (folder / "settings.yaml").write_text("# Resolved settings of a fine-tuning run\n")
        (folder / "finetuning.log").write_text("2026-01-01 00:00:00,000 INFO command: finetune\n")
        (folder / "events.out.tfevents.1").write_text("curves")
        (folder / "report.html").write_text('<meta name="generator" content="effort-finetune">')
        moved: list[object] = []
        with pytest.raises(KeyboardInterrupt):
            archive(folder, wanted)
        monkeypatch.setattr(run_folder.shutil, "move", os.replace)
        archive(folder, wanted)
        assert {path.name for path in folder.rglob("*") if path.is_file()} == set(wanted)
        assert not any((folder / name).exists() for name in wanted)
        monkeypatch.setattr(run_folder.shutil, "move", killed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")
def test_a_log_that_cannot_be_written_costs_no_evaluation(tmp_path, capsys):
    (tmp_path / "evaluation.log").symlink_to("/dev/full")
    with evaluation_log(tmp_path):
        for number in range(3):
            logging.getLogger("effort_finetune").info("line %d", number)
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert errors.count("evaluation.log cannot be written") == 1


def test_warnings_of_an_evaluation_stand_on_the_terminal_too(tmp_path, capsys):
    with evaluation_log(tmp_path):
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("effort_finetune.data").log(level, "a line of level %d", level)
    assert capsys.readouterr().err == "warning: a line of level 30\n"
    assert (tmp_path / "evaluation.log").read_text().count("a line of level") == 3
