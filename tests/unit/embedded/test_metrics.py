"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

PATHS = [
    r"X\real\frames\0\0.png",
    r"X\real\frames\0\1.png",
    r"X\fake\frames\0\0.png",
    r"X\fake\frames\1\0.png",
]


@pytest.fixture
def get_test_metrics():
    from metrics.utils import get_test_metrics

    return get_test_metrics


def test_frames_and_videos(get_test_metrics):
    metrics = get_test_metrics([0.1, 0.7, 0.6, 0.8], [0, 0, 1, 1], PATHS)
    # Frames: pairs (fake over real) 3 of 4; videos: means 0.4 against 0.6 and 0.8.
    assert metrics["auc"] == 0.75
    assert metrics["acc"] == 0.75
    assert metrics["eer"] == 0.5
    assert metrics["ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (metrics["video_auc"], metrics["video_acc"], metrics["video_eer"]) == (1.0, 1.0, 0.0)
    assert metrics["pred"].tolist() == [0.1, 0.7, 0.6, 0.8]
    assert metrics["label"].tolist() == [0, 0, 1, 1]


def test_videos_of_one_name_stay_apart(get_test_metrics):
    paths = [r"X\real\c23\frames\0\0.png", r"X\DF\c23\frames\0\0.png", r"X\F2F\c23\frames\0\0.png"]
    metrics = get_test_metrics([0.2, 0.9, 0.1], [0, 1, 1], paths)
    assert metrics["video_auc"] == metrics["auc"] == 0.5


def test_one_folder_with_two_labels_is_two_videos(get_test_metrics):
    assert get_test_metrics([0.2, 0.9], [0, 1], ["X/0/0.png", "X/0/1.png"])["video_auc"] == 1.0


def test_slashes_and_clips_name_the_same_video(get_test_metrics):
    names = [[r"X\0\0.png", r"X\0\1.png"], "X/0/2.png", "X/1/0.png"]
    # One real video of mean 0.5 against one fake of 0.6.
    assert get_test_metrics([0.1, 0.9, 0.6], [0, 0, 1], names)["video_auc"] == 1.0


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_none_not_a_crash(get_test_metrics, label):
    metrics = get_test_metrics([0.2, 0.9], [label, label], PATHS[:2])
    assert metrics["acc"] == 0.5
    assert [metrics[name] for name in ("auc", "eer", "ap", "video_auc", "video_eer")] == [None] * 5


def test_inputs_are_not_changed_and_classes_above_one_are_fake(get_test_metrics):
    prob, label = np.array([0.1, 0.9]), np.array([0, 3])
    metrics = get_test_metrics(prob, label, PATHS[1:3])
    metrics["pred"][:] = 7
    assert metrics["label"].tolist() == [0, 1]
    assert label.tolist() == [0, 3]
    assert prob.tolist() == [0.1, 0.9]


def test_what_does_not_fit_is_refused(get_test_metrics):
    with pytest.raises(ValueError, match="2 predictions, 2 labels and 1 names"):
        get_test_metrics([0.1, 0.2], [0, 1], PATHS[:1])
    with pytest.raises(ValueError, match="1 of 2 predictions are not finite"):
        get_test_metrics([np.nan, 0.2], [0, 1], PATHS[:2])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=40))
def test_auc_is_the_share_of_pairs_in_order(rows):
    from metrics.utils import binary_metrics

    label = np.array([int(fake) for fake, _ in rows])
    prob = np.array([value / 20 for _, value in rows])
    pairs = [(r, f) for r in prob[label == 0] for f in prob[label == 1]]
    auc = binary_metrics(label, prob)["auc"]
    if not pairs:
        assert auc is None
    else:
        assert auc == pytest.approx(np.mean([(f > r) + 0.5 * (f == r) for r, f in pairs]))


def test_metrics_of_a_batch():
    from metrics.base_metrics_class import calculate_metrics_for_train

    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 1.0]], requires_grad=True)
    assert calculate_metrics_for_train(torch.tensor([0, 2, 1]), logits) == (1.0, 0.0, 1.0, 1.0)
    assert calculate_metrics_for_train(torch.tensor([1, 1]), torch.tensor([[0.9], [0.2]])) == (
        None,
        None,
        0.5,
        None,
    )


def test_recorder():
    from metrics.base_metrics_class import Recorder

    recorder = Recorder()
    assert recorder.average() is None
    value = torch.tensor(3.0, requires_grad=True)
    recorder.update(value)
    recorder.update(None)
    recorder.update(6.0, num=2)
    assert recorder.average() == 5.0
    assert isinstance(recorder.sum, float)
    recorder.clear()
    assert recorder.average() is None
