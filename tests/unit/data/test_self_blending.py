"""Self-blended images: what the blend may touch, where landmarks come from, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effort_finetune.core.errors import UserError
from effort_finetune.data import self_blended_frames
from effort_finetune.data.face_finder import Face
from effort_finetune.data.frames import Missing, open_frames
from effort_finetune.data.self_blended_frames import GROUP, parsed, stored_path, with_self_blended
from effort_finetune.data.self_blending import face_mask, self_blended

from .conftest import Bench, pair_of_groups, picture


def oval(points: int = 81, size: int = 64, radius: float = 0.3) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return size / 2 + radius * size * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([68, 81]))
def test_a_blend_is_the_picture_outside_the_face_and_something_else_inside(seed, points):
    image = picture(3, 64)
    blended = self_blended(image, oval(points), seed)
    assert blended is not None
    assert (blended.shape, blended.dtype) == (image.shape, np.uint8)
    assert np.array_equal(blended, self_blended(image, oval(points), seed))
    corners = np.r_[blended[:3, :3].reshape(-1), blended[-3:, -3:].reshape(-1)].astype(int)
    originals = np.r_[image[:3, :3].reshape(-1), image[-3:, -3:].reshape(-1)].astype(int)
    same = np.array_equal(corners, originals)
    assert same or np.abs(corners - originals).mean() < 120  # the target is as it was, or changed as a whole
    assert not np.array_equal(blended, image)


def test_half_of_the_targets_stay_as_they_were():
    image = picture(3, 64)
    kept = sum(np.array_equal(self_blended(image, oval(), seed)[:3], image[:3]) for seed in range(200))
    assert 70 < kept < 130


@given(st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_a_mask_is_soft_and_lies_about_the_face(seed):
    mask = face_mask((64, 64), oval(), np.random.default_rng(seed))
    assert mask is not None
    assert (mask.min(), mask.max()) == (0.0, 1.0)
    rows, columns = np.nonzero(mask > 0.5)
    assert abs(rows.mean() - 32) < 5
    assert abs(columns.mean() - 32) < 5
    assert 0.3 < (mask > 0.5).sum() / (np.pi * (0.3 * 64) ** 2) < 1.6
    assert len(np.unique(mask)) > 10


def test_landmarks_that_span_nothing_give_no_fake():
    assert self_blended(picture(1), np.full((81, 2), 9.0), 0) is None
    assert self_blended(picture(1), oval() + 1000, 0) is None


def test_stored_landmarks_are_read_as_hosts_keep_them():
    points = np.arange(162, dtype=np.uint32).reshape(81, 2)
    stream = io.BytesIO()
    np.save(stream, points)
    for data in (points.tobytes(), stream.getvalue()):
        assert np.array_equal(parsed(data), points)
    for data in (b"", b"123", points[:5].tobytes(), stream.getvalue()[:40]):
        assert parsed(data) is None
    assert stored_path("A\\real\\frames\\7\\001.png") == "A\\real\\landmarks\\7\\001.npy"


class OneFace:
    """A finder that sees the same face in every picture but the first."""

    name = "dlib68"

    def __init__(self) -> None:
        self.seen = 0

    def make(self) -> Any:
        return self

    def find(self, images: Any) -> list[list[Face]]:
        self.seen += 1
        return [
            [] if self.seen == 1 else [Face((0, 0, 9, 9), 1.0, np.ones((5, 2)), oval(68, 32))] for _ in images
        ]


def opened(embedded: Bench, landmarks: dict[str, bytes] | None = None, **flags: Any) -> Any:
    images = embedded.write(pair_of_groups(2))
    embedded.write_files({**images, **(landmarks or {})})
    chosen = embedded.settings(lmdb=False, resolution=32, **flags)
    return open_frames(embedded.host, chosen, split="train", names=["UADFV"]), chosen


def stored(embedded: Bench) -> dict[str, bytes]:
    images = embedded.write(pair_of_groups(2))
    points = oval(81, 40).astype(np.uint32).tobytes()
    return {stored_path(path): points for path in images if "Real" in path}


def test_real_frames_come_once_more_as_fakes_that_change_with_the_epoch(embedded):
    frames, chosen = opened(embedded, stored(embedded), self_blended=0.5, use_data_augmentation=True)
    made = with_self_blended(frames, chosen, embedded.host)
    real = sum(row.label == 0 for row in frames.rows)
    assert len(made) == len(frames) + real // 2
    fakes = [index for index, row in enumerate(made.rows) if row.label_name == GROUP]
    assert fakes == list(range(len(frames), len(made)))
    assert made.protocol["self_blended"]["stored_landmarks"] == real // 2
    made.set_epoch(1, 0)
    first = made[fakes[0]]
    assert first["label"] == 1
    assert torch.equal(first["image"], made[fakes[0]]["image"])
    made.set_epoch(1, 1)
    assert not torch.equal(first["image"], made[fakes[0]]["image"])
    assert torch.equal(made[0]["image"], frames[0]["image"])


def test_frames_without_landmarks_are_looked_at_and_one_without_a_face_is_counted(embedded, monkeypatch):
    monkeypatch.setattr(self_blended_frames, "choose_finder", lambda name, folders: OneFace())
    frames, chosen = opened(embedded, self_blended=1.0)
    made = with_self_blended(frames, chosen, embedded.host)
    real = sum(row.label == 0 for row in frames.rows)
    assert made.protocol["self_blended"] == {
        "frames": real - 1, "stored_landmarks": 0, "found_landmarks": real - 1, "finder": "dlib68",
        "without_face": 1,
    }  # fmt: skip
    assert not isinstance(made[len(made) - 1], Missing)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "no dlib to find them; .*MTCNN has five.*next: pip install dlib-bin"),
        ({"faces": "whole"}, "self_blended; got faces whole; expected faces cropped"),
        ({"fit": "native"}, "self_blended; got fit native; expected fit crop or pad or squash"),
    ],
)
def test_without_landmarks_it_is_refused_and_never_replaced(embedded, monkeypatch, flags, message):
    def none(name: str, folders: Any) -> Any:
        raise UserError("not there")

    monkeypatch.setattr(self_blended_frames, "choose_finder", none)
    frames, chosen = opened(embedded, self_blended=1.0, **flags)
    with pytest.raises(UserError, match=message):
        with_self_blended(frames, chosen, embedded.host)
