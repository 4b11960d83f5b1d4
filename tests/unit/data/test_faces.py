"""Alignment: the five points come to lie on the template, and a crop is looked at again."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from effort_finetune.data.face_finder import Face
from effort_finetune.data.faces import crop_faces, similarity, template


def test_similarity_recovers_a_known_map() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(5, 2)) * 50
    angle, scale, shift = 0.4, 1.7, np.array([3.0, -8.0])
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(source, source @ rotation.T + shift)
    np.testing.assert_allclose(matrix, np.column_stack([rotation, shift]), atol=1e-9)


def test_similarity_never_mirrors() -> None:
    source = template(256, 1.3)
    matrix = similarity(source, source * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0
    with pytest.raises(ValueError, match="no direction"):
        similarity(np.ones((5, 2)), source)


def test_template_is_arcfaces_with_a_margin_around_the_same_middle() -> None:
    np.testing.assert_allclose(template(112, 1.0)[0], [38.2946, 51.6963])
    tight, wide = template(256, 1.0), template(256, 1.3)
    np.testing.assert_allclose((tight - 128) / 1.3, wide - 128, atol=1e-9)


def painted_face(size: int = 300) -> tuple[np.ndarray, Face]:
    """A frame with the five points as dots of their own colour, tilted."""
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    five = (template(120, 1.0) - 60) @ turn.T + [160, 140]
    image = np.zeros((size, size, 3), np.uint8)
    for number, (x, y) in enumerate(np.rint(five).astype(int)):
        cv2.circle(image, (int(x), int(y)), 4, (50 + 40 * number, 0, 255 - 40 * number), -1)
    return image, Face((100, 80, 220, 200), 1.0, five, np.full((81, 2), 150.0))


class Scripted:
    """Answers one list of pictures after the other with what it was given."""

    name, model_hash, licence = "scripted", "0", "none"

    def __init__(self, *answers: list[list[Face]]) -> None:
        self.answers = list(answers)

    def find(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        answer = self.answers.pop(0)
        assert len(answer) == len(images)
        return answer


def test_the_crop_puts_the_five_points_on_the_template() -> None:
    image, face = painted_face()
    (result,) = crop_faces([image], Scripted([[face]], [[face]]), size=256, margin=1.3)
    (crop,) = result.crops
    assert crop.image.shape == (256, 256, 3)
    assert crop.landmarks is not None
    assert (crop.landmarks.shape, crop.landmarks.dtype) == ((81, 2), np.uint32)
    for number, aim in enumerate(template(256, 1.3)):
        colour = np.array([50 + 40 * number, 0, 255 - 40 * number])
        rows, columns = np.nonzero(np.abs(crop.image - colour).sum(2) < 25)
        assert np.hypot(columns.mean() - aim[0], rows.mean() - aim[1]) < 2


def test_frames_without_a_face_and_crops_without_one_again_are_told_apart() -> None:
    image, face = painted_face()
    at_one_place = Face(face.box, 1.0, np.ones((5, 2)))
    results = crop_faces(
        [image] * 4, Scripted([[], [face], [face], [at_one_place]], [[], [face]]), size=64, margin=1.3
    )
    assert [(r.found, r.lost, len(r.crops)) for r in results] == [(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 0, 0)]


def test_which_faces_are_cut() -> None:
    image, face = painted_face()
    small = Face((0, 0, 40, 40), 1.0, face.points / 3)
    for which, crops in (("largest", [1, 1]), ("all", [2, 1]), ("single", [0, 1])):
        finder = Scripted([[face, small], [face]], [[face]] * sum(crops))
        results = crop_faces([image] * 2, finder, size=32, which=which)  # type: ignore[arg-type]
        assert [len(r.crops) for r in results] == crops
        assert [r.found for r in results] == [2, 1]
