"""What each key of ``data_aug`` does to an image, measured on the image."""

import pickle
import random
from typing import Any

import cv2
import numpy as np
import pytest

from effort_finetune.config import DataAug
from effort_finetune.config.augmentations import JPEG_PROB
from effort_finetune.core.errors import UserError
from effort_finetune.data.augment import Augmentation, item_seed

from .conftest import picture

NOTHING: dict[str, Any] = {
    "flip_prob": 0.0,
    "rotate_prob": 0.0,
    "blur_prob": 0.0,
    "brightness_prob": 0.0,
    "quality_lower": 100,
    "quality_upper": 100,
}
# JPEG at quality 100 still rounds, which on smooth pictures changes a value by very little.
ROUNDING = 4


def augmentation(**changes: Any) -> Augmentation:
    return Augmentation(DataAug(**{**NOTHING, **changes}))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def outputs(pipeline: Augmentation, image: np.ndarray, count: int = 200) -> list[np.ndarray]:
    return [pipeline(image, seed) for seed in range(count)]


@pytest.fixture
def image() -> np.ndarray:
    """Grey, because JPEG halves the resolution of colour at every quality."""
    grey = cv2.cvtColor(picture(3), cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (96, 96), interpolation=cv2.INTER_CUBIC)[:, :, None].repeat(3, axis=2)


def textured() -> np.ndarray:
    """Strong detail, so that every JPEG quality leaves its own trace."""
    return np.random.default_rng(5).integers(0, 256, (64, 64, 1), dtype=np.uint8).repeat(3, axis=2)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def applied_quality(before: np.ndarray, after: np.ndarray) -> int | None:
    """The JPEG quality that turns one image into the other; None where they are equal."""
    if np.array_equal(before, after):
        return None
    errors = {q: np.square(jpeg(before, q).astype(float) - after).mean() for q in range(1, 101)}
    return min(errors, key=errors.__getitem__)


def test_off_means_unchanged(image: np.ndarray) -> None:
    assert max(difference(out, image) for out in outputs(augmentation(), image, 50)) <= ROUNDING


@pytest.mark.parametrize(("lower", "upper"), [(40, 40), (75, 75), (60, 95)])
def test_the_jpeg_quality_applied_is_the_one_asked_for(lower: int, upper: int) -> None:
    pipeline = augmentation(quality_lower=lower, quality_upper=upper)
    before = textured()
    applied = [applied_quality(before, pipeline(before, seed)) for seed in range(40)]
    measured = [quality for quality in applied if quality is not None]
    assert min(measured) >= lower
    assert max(measured) <= upper
    if lower < upper:
        assert max(measured) - min(measured) > 15
    assert 0.25 < len(measured) / len(applied) < 0.75  # the host compresses half of the images
    assert JPEG_PROB == 0.5


def test_low_quality_leaves_its_quantisation_in_the_image() -> None:
    """The 8x8 spectrum of a compressed block lies on multiples of the quantisation table of that quality."""
    step = 20  # the standard's first luminance entry, 16, at quality 40: 16 * (5000 / 40) / 100
    before = 96 + textured() // 4  # room on both sides, for clipping would move the spectrum
    pipeline = augmentation(quality_lower=40, quality_upper=40)
    after = next(out for out in outputs(pipeline, before, 20) if not np.array_equal(out, before))
    means = [
        cv2.dct(after[y : y + 8, x : x + 8, 0].astype(np.float32) - 128)[0, 0] / step
        for y in range(0, 64, 8)
        for x in range(0, 64, 8)
    ]
    assert np.abs(np.array(means) - np.rint(means)).mean() < 0.12  # 0.25 for an uncompressed image


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flip_prob(image: np.ndarray, probability: float) -> None:
    flips = [
        difference(out, image[:, ::-1]) <= ROUNDING
        for out in outputs(augmentation(flip_prob=probability), image)
    ]
    assert abs(np.mean(flips) - probability) < 0.1


@pytest.mark.parametrize("limit", [5.0, 20.0])
def test_rotation_stays_in_its_limit_and_has_no_black_corners(limit: float) -> None:
    grid = np.full((128, 128, 3), 255, np.uint8)
    cv2.line(grid, (20, 64), (107, 64), (0, 0, 0), 3)
    angles = []
    for out in outputs(augmentation(rotate_prob=1.0, rotate_limit=(-limit, limit)), grid, 60):
        assert out[[0, 0, -1, -1], [0, -1, 0, -1]].min() > 200
        rows, columns = np.nonzero(out[:, :, 0] < 128)
        angles.append(np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0])))
    assert np.abs(angles).max() <= limit + 0.5
    assert max(angles) > 0.5 * limit
    assert min(angles) < -0.5 * limit


def test_steps_draw_independently(image: np.ndarray) -> None:
    """Both steps at one half: a shared draw would apply both or neither to every image."""
    pipeline = augmentation(flip_prob=0.5, blur_prob=0.5, blur_limit=(7, 7))
    blurred = cv2.GaussianBlur(image, (7, 7), 0)
    expected = {"none": image, "flip": image[:, ::-1], "blur": blurred, "both": blurred[:, ::-1]}
    counts = dict.fromkeys(expected, 0)
    for out in outputs(pipeline, image, 400):
        counts[min(expected, key=lambda name: difference(out, expected[name]))] += 1
    assert all(70 <= count <= 130 for count in counts.values()), counts


def test_rotate_prob(image: np.ndarray) -> None:
    outs = outputs(augmentation(rotate_prob=0.4, rotate_limit=(10.0, 20.0)), image)
    assert 0.3 < np.mean([difference(out, image) > 20 for out in outs]) < 0.5


def test_blur_limit_is_the_kernel_size_and_does_not_shift() -> None:
    point = np.zeros((33, 33, 3), np.uint8)
    point[16, 16] = 255
    widths = set()
    for out in outputs(augmentation(blur_prob=1.0, blur_limit=(3, 7)), point, 80):
        rows, columns = np.nonzero(out[:, :, 0] > ROUNDING)
        assert rows.min() + rows.max() == columns.min() + columns.max() == 32
        widths.add(int(columns.max() - columns.min() + 1))
    assert widths <= {3, 5, 7}
    assert len(widths) > 1


def test_blur_prob() -> None:
    sharp = textured()
    outs = outputs(augmentation(blur_prob=0.4, blur_limit=(7, 7)), sharp)
    assert 0.3 < np.mean([out.std() < 0.8 * sharp.std() for out in outs]) < 0.5


def test_brightness_prob_and_limits() -> None:
    grey = np.full((32, 32, 3), 100, np.uint8)
    changed = [
        difference(out, grey) > ROUNDING
        for out in outputs(augmentation(brightness_prob=0.5, brightness_limit=(0.3, 0.4)), grey)
    ]
    # One in three changes is of brightness, the others move a grey image's colour by little or not at all.
    assert 0.1 < np.mean(changed) < 0.5
    brightest = max(
        out.mean() for out in outputs(augmentation(brightness_prob=1.0, brightness_limit=(0.3, 0.4)), grey)
    )
    assert 100 + 0.3 * 255 - ROUNDING <= brightest <= 100 + 0.4 * 255 + 3


def test_contrast_limit() -> None:
    steps = np.repeat(np.linspace(90, 150, 32).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    pipeline = augmentation(brightness_prob=1.0, brightness_limit=(0.0, 0.0), contrast_limit=(0.4, 0.5))
    spans = [np.ptp(out[:, :, 0].astype(int)) / 60 for out in outputs(pipeline, steps, 100)]
    assert 1.38 < max(spans) < 1.55


def test_one_seed_one_image_in_any_process_and_nothing_global_moves(image: np.ndarray) -> None:
    pipeline = Augmentation(DataAug())
    first = outputs(pipeline, image, 20)
    random.seed(99)
    np.random.seed(99)
    before = random.getstate(), np.random.get_state()[1].tolist()
    again = outputs(pickle.loads(pickle.dumps(pipeline)), image, 20)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({out.tobytes() for out in first}) > 10


def test_seed_of_an_item_depends_on_run_epoch_and_row() -> None:
    seeds = {item_seed(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(3)}
    assert len(seeds) == 27


def test_the_protocol_names_every_limit() -> None:
    text = repr(
        Augmentation(
            DataAug(quality_lower=41, rotate_limit=(-9.0, 8.0), brightness_limit=(-0.03, 0.02))
        ).describe()
    )
    for part in ("[41, 100]", "[-9.0, 8.0]", "[-0.03, 0.02]"):
        assert part in text


def test_any_transform_of_albumentations_comes_by_its_name(image: np.ndarray) -> None:
    extra = augmentation(extra={"InvertImg": 1.0, "VerticalFlip": 1.0})
    assert difference(extra(image, 0), 255 - image[::-1]) <= ROUNDING
    half = outputs(augmentation(extra={"InvertImg": 0.5}), image)
    assert 60 <= sum(difference(made, image) > 100 for made in half) <= 140
    assert extra.describe()[-2:] == [
        {"step": name, "p": 1.0, "values": "albumentations' defaults"}
        for name in ("InvertImg", "VerticalFlip")
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("InvrtImg", "did you mean 'InvertImg'"),
        ("Compose", "the name of a transform"),
        ("Lambda", "own functions"),
        ("Crop", "keeps size"),
        ("Normalize", "makes float32 of 224x224x3"),
        ("MaskDropout", "nothing with p alone"),
    ],
)
def test_what_makes_no_picture_of_a_picture_is_refused_by_name(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        augmentation(extra={name: 0.5})
