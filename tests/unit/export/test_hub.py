"""Folders for a model hub, their cards, and the way up and down, against a stand-in on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from evaluate.bench import Bench
from toyhost import EMBEDDED
from toytower import save_toy_weights

from effort_finetune.cli.main import main
from effort_finetune.core.errors import UserError
from effort_finetune.core.files import sha256_file
from effort_finetune.evaluate import results
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.export.hub_folder import export_hub_folder, refuse_results_of_others, without_paths
from effort_finetune.export.model_card import model_card
from effort_finetune.host import open_host
from effort_finetune.weights.deepfakebench_layout import Exported

from .hub_stand_in import serving

SHA = "a" * 64


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """Results of a tiny detector on two datasets, one of which has reals alone."""
    bench = Bench(open_host(EMBEDDED), tmp_path_factory.mktemp("data"))
    bench.write("ToyA", videos=6)
    bench.write("ToyB", videos=2, groups=["Toy_Real"])
    weights = save_toy_weights(tmp_path_factory.mktemp("weights") / "effort.pth")
    folder = tmp_path_factory.mktemp("run")
    settings = bench.settings(test_dataset=["ToyA", "ToyB"])
    return results.read(evaluate(settings, bench.host, weights=weights, output_dir=folder))


def front(card):
    _, text, body = card.split("---\n", 2)
    return yaml.safe_load(text), body


def test_the_card_holds_the_results_numbers_and_the_hubs_metadata(document):
    meta, body = front(
        model_card(document, name="my-detector", weights="effort.pth", sha256=SHA, license="mit")
    )
    assert meta["license"] == "mit"
    assert meta["library_name"] == "effort-finetune"
    (index,) = meta["model-index"]
    assert index["name"] == "my-detector"
    by_name = {entry["dataset"]["name"]: entry["metrics"] for entry in index["results"]}
    for name, block in document["datasets"].items():
        found = {metric["type"]: metric["value"] for metric in by_name.get(name, ())}
        assert found.get("video_auc") == block["video"]["auc"]
        assert f"| {name} |" in body
    assert SHA in body
    assert document["checkpoint"]["sha256"] in body
    from huggingface_hub import ModelCard

    card = ModelCard(model_card(document, name="my-detector", weights="effort.pth", sha256=SHA))
    assert len(card.data.eval_results) == sum(len(own) for own in by_name.values())


def test_text_from_files_cannot_act_in_a_card(document):
    evil = "D](http://x) <img src=x> | `rm`\n---\nlicense: mit"
    tainted = {**document, "datasets": {evil: next(iter(document["datasets"].values()))}}
    meta, body = front(model_card(tainted, name="n\n---\nx: 1", weights="effort.pth", sha256=SHA))
    assert "license" not in meta
    assert "<img" not in body.replace("\\<img", "")
    assert re.search(r"(?<!\\)\]\(http", body) is None


def test_no_path_of_this_machine_is_in_a_public_document():
    private = {
        "path": "/home/me/secret/effort.pth", "command": ["finetune", "/home/me/x/"],
        "win": "C:\\Users\\me\\w.pth",
        "/home/me/faces": {"scores": "scores/a.csv", "scores_sha256": SHA, "auc": 0.5}, "rate": "1/2",
    }  # fmt: skip
    assert without_paths(private) == {
        "path": "effort.pth", "command": ["finetune", "x"], "win": "w.pth",
        "faces": {"scores": None, "scores_sha256": SHA, "auc": 0.5}, "rate": "1/2",
    }  # fmt: skip


def written(path):
    torch.save({"w": torch.zeros(2)}, path)
    return Exported((path,))


@pytest.fixture(scope="module")
def hub_folder(document, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "my-detector"
    export_hub_folder(folder, document, written, adapter=False, name="my-detector")
    return folder


def test_a_hub_folder_is_whole_or_not_there(document, hub_folder, tmp_path):
    assert sorted(p.name for p in hub_folder.iterdir()) == ["README.md", "effort.pth", "results.json"]
    assert sha256_file(hub_folder / "effort.pth") in (hub_folder / "README.md").read_text()
    assert set(results.read(hub_folder)["datasets"]) == set(document["datasets"])

    def fail(path):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        export_hub_folder(tmp_path / "x", document, fail, adapter=False, name="x")
    assert list(tmp_path.iterdir()) == []


def test_results_of_other_weights_are_refused(hub_folder):
    with pytest.raises(UserError, match="numbers of weights with SHA-256"):
        refuse_results_of_others(results.read(hub_folder), hub_folder, SHA)


def command(*words, endpoint, token="hf_x"):
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_TOKEN": token, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    return subprocess.run(
        [sys.executable, "-m", "effort_finetune", "hub", *map(str, words)],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_folder_goes_up_and_comes_down_the_same(hub_folder, tmp_path):
    with serving() as (hub, endpoint):
        up = command("push", hub_folder, "me/my-detector", endpoint=endpoint)
        assert up.returncode == 0, up.stderr
        assert "/me/my-detector/commit/" in up.stdout
        files = {path.name: path.read_bytes() for path in hub_folder.iterdir()}
        assert hub.repositories["me/my-detector"] == files
        hub.repositories["me/my-detector"]["evil.py"] = b"print()"
        down = command("pull", "me/my-detector", "--output", tmp_path / "got", endpoint=endpoint)
    assert down.returncode == 0, down.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()} == files


def test_what_a_hub_refuses_is_one_line(hub_folder, tmp_path):
    with serving() as (hub, endpoint):
        hub.token = "another"
        hub.repositories["me/other"] = {"README.md": b"x"}
        cases = {
            "no such repository": command("pull", "me/none", "--output", tmp_path / "a", endpoint=endpoint),
            "a repository without effort.pth": command(
                "pull", "me/other", "--output", tmp_path / "b", endpoint=endpoint
            ),
            "HF_TOKEN": command("push", hub_folder, "me/x", endpoint=endpoint),
        }
    cases["no answer"] = command("pull", "me/none", "--output", tmp_path / "c", endpoint=endpoint)
    for words, done in cases.items():
        assert done.returncode == 2, (words, done.stderr)
        assert words in done.stderr
        assert done.stderr.strip().count("\n") == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("pull", "a/b/c", "--output", "d"), "expected OWNER/NAME"),
        (("push", ".", "me/x"), "expected what export wrote"),
    ],
)
def test_what_no_hub_is_asked_for_is_one_line(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["hub", *words]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.strip().count("\n") == 0
    assert list(tmp_path.iterdir()) == []
