"""What makes two results differ is found, with its share, stated or not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toyhost
from toyhost import EMBEDDED
from toytower import SIZE, save_toy_weights

from effort_finetune.core.errors import UserError
from effort_finetune.evaluate import results
from effort_finetune.evaluate.dataset_scores import score_dataset
from effort_finetune.evaluate.evaluation import evaluate
from effort_finetune.host import open_host
from effort_finetune.studies import scoring_again
from effort_finetune.studies.explaining import explained
from effort_finetune.studies.explanation_text import explanation_text
from effort_finetune.studies.published import as_document, read_published

LABELS = {"Toy_Real": 0, "Toy_Fake": 1}


class Bench(toyhost.Bench):
    """Noisy videos: no factor leaves the order of their scores alone."""

    @property
    def defaults(self):
        small = {"head_width": 16, "workers": 0, "device": "cpu", "precision": "float32"}
        return {**small, "label_dict": LABELS, "resolution": SIZE, "bootstrap_samples": 0}

    def write(self):
        rng = np.random.default_rng(1)

        def picture(video, _):
            mean = 120 + 6 * LABELS[video.group] + rng.normal(0, 8)
            return rng.normal(mean, 60, (40, 40, 3)).clip(0, 255).astype(np.uint8)

        videos = toyhost.list_videos("ToyA", LABELS, {"test": 12}, frames=6, folder="{split}_{number:03d}")
        toyhost.write_dataset(self.root, "ToyA", videos, picture)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_toy_weights(tmp_path_factory.mktemp("weights") / "effort.pth")


@pytest.fixture(scope="module")
def measured(weights, tmp_path_factory):
    """Returns a function that measures the same dataset under other settings, and the host."""
    folder = tmp_path_factory.mktemp("why")
    bench = Bench(open_host(EMBEDDED), folder / "data")
    bench.write()
    done = {}

    def document(**settings):
        key = json.dumps(settings, sort_keys=True)
        if key not in done:
            chosen = bench.settings(test_dataset=["ToyA"], **settings)
            path = evaluate(chosen, bench.host, weights=weights, output_dir=folder / str(len(done)))
            done[key] = path
        return results.read(done[key])

    document.host, document.files = bench.host, done
    return document


BEFORE = {"frame_num": {"train": 4, "test": 3}}


def _explained(measured, weights, second, metric="video_auc"):
    return explained((measured(**BEFORE), second), measured.host, "ToyA", metric, weights)


def test_each_difference_has_the_share_of_a_run_with_it_alone(measured, weights):
    shown = {"allow_preprocessing_mismatch": True}
    both = measured(frame_num={"train": 4, "test": 1}, mean=[0.9, 0.1, 0.5], **shown)
    found = _explained(measured, weights, both)
    first = measured(**BEFORE)["datasets"]["ToyA"]["video"]["auc"]
    alone = {
        "frames a video": measured(frame_num={"train": 4, "test": 1}),
        "mean and std": measured(**BEFORE, mean=[0.9, 0.1, 0.5], **shown),
    }
    shares = {one.factor: one.share for one in found.shares}
    assert set(shares) == set(alone)
    for factor, document in alone.items():
        assert shares[factor] == pytest.approx(
            document["datasets"]["ToyA"]["video"]["auc"] - first, abs=1e-12
        )
    assert sum(shares.values()) + found.remainder == pytest.approx(found.gap, abs=1e-9)
    assert found.together == pytest.approx(found.second, abs=1e-9)
    text = explanation_text(found)
    assert "frames a video" in text
    assert "the gap" in text


def test_what_a_published_number_does_not_state_is_found_by_trying(measured, weights):
    other = measured(**BEFORE, frame_sampling="first")
    video = {
        key: value for key, value in other["datasets"]["ToyA"]["video"].items() if isinstance(value, float)
    }
    published = {
        "datasets": {"ToyA": {"video": {name: round(video[name], 4) for name in ("auc", "ap", "eer")}}}
    }
    found = _explained(measured, weights, published)
    assert [(one.factor, one.second, one.stated) for one in found.shares] == [
        ("frame sampling", "first", False)
    ]
    assert abs(found.remainder) < 1e-4
    assert any("not stated" in note for note in found.notes)


def test_more_frames_than_a_video_holds_are_one_value(measured, weights):
    other = measured(frame_num={"train": 4, "test": 6})
    video = {k: round(v, 4) for k, v in other["datasets"]["ToyA"]["video"].items() if isinstance(v, float)}
    published = {"datasets": {"ToyA": {"video": {name: video[name] for name in ("auc", "ap", "nll")}}}}
    found = _explained(measured, weights, published)
    assert [(one.factor, one.second) for one in found.shares] == [("frames a video", 8)]
    assert abs(found.remainder) < 1e-4
    assert "cannot be told apart" in found.notes[0]


def test_equal_results_have_nothing_to_explain(measured, weights):
    found = _explained(measured, weights, measured(**BEFORE))
    assert (found.shares, found.gap, found.alternatives) == ((), 0.0, ())


def test_a_gap_that_nothing_explains_stays_in_the_remainder(measured, weights):
    published = {"datasets": {"ToyA": {"video": {"auc": 0.123}}}}
    found = _explained(measured, weights, published)
    assert found.remainder + sum(one.share or 0 for one in found.shares) == pytest.approx(found.gap, abs=1e-9)
    assert found.alternatives


def test_the_command_says_what_is_missing_before_torch(tmp_path, measured):
    measured(**BEFORE)
    first = next(iter(measured.files.values()))
    (tmp_path / "b.json").write_text('{"datasets": {"Other": {"video_auc": 0.9}}}')
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "effort_finetune", "why", str(first), "b.json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "no dataset with video_auc in both results" in done.stderr
    assert "| torch\n" not in done.stderr


def test_no_frame_is_scored_twice_in_the_same_way(measured, weights, monkeypatch):
    """Frames asked for and their sampling only choose frames; each of a dataset's is scored once."""
    seen = []

    def counted(model, dataset, settings, **how):
        found = score_dataset(model, dataset, settings, **how)
        seen.extend(dataset.rows[i].path for i in found.index)
        return found

    monkeypatch.setattr(scoring_again, "score_dataset", counted)
    other = measured(frame_num={"train": 4, "test": 5}, frame_sampling="first")
    found = _explained(measured, weights, other)
    assert {one.factor for one in found.shares} == {"frames a video", "frame sampling"}
    assert found.together == pytest.approx(found.second, abs=1e-12)
    assert len(seen) == len(set(seen)) <= 2 * 12 * 6


def test_an_absent_checkpoint_is_one_line(measured, tmp_path):
    with pytest.raises(UserError, match="weights"):
        explained(
            (measured(**BEFORE), measured(**BEFORE)), measured.host, "ToyA", "video_auc", tmp_path / "no.pth"
        )


def test_a_published_row_stands_for_a_second_file():
    found = read_published("effort-paper", Path())
    document = as_document(found, "Effort", ["Celeb-DF-v2", "ToyA"])
    assert document["datasets"] == {"Celeb-DF-v2": {"frame": {"auc": 0.901}, "video": {"auc": 0.956}}}
    with pytest.raises(UserError, match="published_row"):
        as_document(found, "Effrot", ["Celeb-DF-v2"])


def test_weights_are_what_their_hash_says_wherever_they_lie(measured, weights, tmp_path):
    """The same file moved is no difference; another one under the same path cannot be put back."""
    first = measured(**BEFORE)

    def factors(**checkpoint):
        second = {**first, "checkpoint": {**first["checkpoint"], **checkpoint}}
        found = explained(
            (first, second), measured.host, "ToyA", "video_auc", weights, checkpoints=[tmp_path / "other.pth"]
        )
        return {one.factor: one for one in found.shares}

    assert factors(path=str(tmp_path / "gone.pth")) == {}
    overwritten = factors(sha256="0" * 64)["checkpoint"]
    assert overwritten.share is None
    assert "not here" in overwritten.second
    save_toy_weights(tmp_path / "other.pth", seed=5)
    other = factors(sha256=hashlib.sha256((tmp_path / "other.pth").read_bytes()).hexdigest())["checkpoint"]
    assert other.second == str(tmp_path / "other.pth")
    assert other.share is not None
