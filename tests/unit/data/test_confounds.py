"""Formats and sizes that tell the classes are found; the same pictures under random labels accuse no one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from effort_finetune.data.check import check_dataset
from effort_finetune.data.confounds import chosen_pictures, container_score

from .conftest import Bench, pair_of_groups, picture

COUNT = 40


def encoded(number: int, kind: str, label: int) -> bytes:
    image = picture(number, 64)
    if kind == "size" and label:
        image = cv2.resize(image, (56, 56))
    if kind == "aspect" and label:
        image = image[:60]
    if kind == "quality":
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75 if label else 95])[1].tobytes()
    jpeg = kind == "format" and not label
    return cv2.imencode(".jpg" if jpeg else ".png", image)[1].tobytes()


def score(kind: str, seed: int):
    labels = np.random.default_rng(seed).permutation([0, 1] * COUNT).tolist()
    names = [str(i) for i in range(len(labels))]
    return container_score(lambda i: encoded(1000 * seed + i, kind, labels[i]), labels, names, seed=seed)


@pytest.mark.parametrize("kind", ["format", "quality", "size", "aspect"])
def test_planted_confounds_are_found(kind):
    assert score(kind, 0).warns


def test_sets_cut_in_two_at_random_are_not_accused():
    assert [seed for seed in range(3) if score("none", seed).warns] == []


@pytest.mark.parametrize("seed", [0, 24])
def test_frames_of_few_videos_are_no_crowd_of_witnesses(seed):
    """Ten videos a class, each with a size and quality of its own: by chance large ones may be fake."""
    draw = np.random.default_rng(seed)
    labels, frames = draw.permutation([0, 1] * 10), []
    for video, label in enumerate(labels):
        side, quality = int(draw.integers(48, 96)), int(draw.integers(60, 99))
        small = draw.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        rolled = [np.roll(image, number, 1) for number in range(10)]
        frames += [
            (cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes(), label, video)
            for one in rolled
        ]
    data, own, videos = zip(*frames, strict=True)
    found = container_score(data.__getitem__, own, list(map(str, videos)), seed=seed)
    assert found.auc > 0.75  # of which an interval over 200 frames would be sure
    assert not found.warns


def test_too_few_pictures_have_a_reason_and_no_score():
    few = container_score(lambda i: encoded(i, "format", i % 2), [0, 1] * 4, list("abcdefgh"), seed=0)
    assert few.auc is None
    assert few.reason
    assert not few.warns


def test_pictures_are_drawn_from_all_videos_alike():
    videos = ["a"] * 50 + ["b"] * 3 + ["c"] * 2
    chosen = chosen_pictures([0] * 55, videos, seed=1, per_class=9)
    assert [sum(videos[i] == v for i in chosen) for v in "abc"] == [4, 3, 2]


def test_prepares_own_labels_need_no_label_dict(embedded: Bench):
    embedded.write(pair_of_groups(3))
    report = check_dataset(embedded.host, embedded.settings(label_dict={}), "UADFV")
    assert [f.message for f in report.findings if f.kind == "unknown_label"] == []
    assert report.confounds["container"]["reason"]
