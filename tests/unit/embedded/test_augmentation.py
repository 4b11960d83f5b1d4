"""Training augmentation: each step does what its setting says."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

SQUARE = np.zeros((64, 64, 3), np.uint8)
SQUARE[20:30, 5:20] = 200


@pytest.fixture
def augment():
    from dataset.augmentation import build_augmentation

    def augment(image, count=1, seed=3, **options):
        # albumentations 1 draws from here.
        random.seed(seed)
        pipeline = build_augmentation(options, seed=seed)
        return [pipeline(image=image)["image"] for _ in range(count)]

    return augment


def test_nothing_asked_nothing_done(augment):
    assert all(np.array_equal(out, SQUARE) for out in augment(SQUARE, 5))


def test_flip(augment):
    assert np.array_equal(augment(SQUARE, flip_prob=1.0)[0], SQUARE[:, ::-1])


def test_steps_are_drawn_independently(augment):
    outs = augment(
        SQUARE, 200, flip_prob=0.5, brightness_prob=0.5, brightness_limit=[-0.3, -0.2], contrast_limit=[0, 0]
    )
    cases = Counter((bool(out[25, 50].any()), bool(out.max() < 200)) for out in outs)
    assert len(cases) == 4
    assert min(cases.values()) > 25


def test_blur_leaves_the_image_where_it_is(augment):
    outs = augment(SQUARE, 20, blur_prob=1.0, blur_limit=[3, 7])
    columns = np.arange(64)
    for out in outs:
        assert not np.array_equal(out, SQUARE)
        weights = out[..., 0].sum(0)
        assert (columns * weights).sum() / weights.sum() == pytest.approx(12, abs=0.1)


def test_jpeg_quality(augment):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)

    def loss(quality):
        outs = augment(noise, 20, quality_lower=quality, quality_upper=quality)
        changed = [out for out in outs if not np.array_equal(out, noise)]
        assert 3 < len(changed) < 17
        return np.mean([np.abs(out.astype(float) - noise).mean() for out in changed])

    assert loss(20) > loss(60) > loss(95) > 0


def test_rotation_reflects_at_the_border(augment):
    white = np.full((64, 64, 3), 255, np.uint8)
    assert augment(white, rotate_prob=1.0, rotate_limit=[10, 10])[0].min() == 255


def test_seed(augment):
    options = {"rotate_prob": 0.5, "rotate_limit": [-30, 30], "flip_prob": 0.5}
    one, same, other = (augment(SQUARE, 10, seed=seed, **options) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate_prob": 0.5}, "data_aug.rotate_limit is not set"),
        ({"blur_prob": 0.5, "blur_limit": [4, 4]}, "holds no odd kernel size"),
    ],
)
def test_wrong_limits_show_when_the_dataset_is_opened(bench, options, message):
    from dataset.abstract_dataset import DeepfakeAbstractBaseDataset
    from dataset.errors import DatasetError

    bench.add("DemoA")
    config = bench.config(use_data_augmentation=True, data_aug=options)
    with pytest.raises(DatasetError, match=message):
        DeepfakeAbstractBaseDataset(config, "train")
    assert len(DeepfakeAbstractBaseDataset(config, "test")) > 0


def test_only_training_augments_and_workers_draw_apart(bench):
    from dataset.abstract_dataset import DeepfakeAbstractBaseDataset

    bench.add("DemoA", splits={"train": 8, "test": 1}, groups={"DemoA_Real": "DemoA_Real"}, frames=1)
    options = {"flip_prob": 0.5}
    config = bench.config(use_data_augmentation=True, data_aug=options)
    plain = DeepfakeAbstractBaseDataset(bench.config(), "train")
    images = torch.stack([plain[i][0] for i in range(8)])
    dataset = DeepfakeAbstractBaseDataset(config, "train")

    def flips(workers):
        torch.manual_seed(0)
        loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=dataset.collate_fn)
        seen = torch.cat([batch["image"] for batch in [*loader, *loader]])
        kept = [bool(torch.equal(out, images[i % 8])) for i, out in enumerate(seen)]
        flipped = [bool(torch.equal(out, images[i % 8].flip(-1))) for i, out in enumerate(seen)]
        assert all(a != b for a, b in zip(kept, flipped, strict=True))
        return flipped

    two = flips(2)
    assert two == flips(2)
    assert two[:4] != two[4:8] or two[8:12] != two[12:]
    assert two[:8] != two[8:]
    test = DeepfakeAbstractBaseDataset(config, "test")
    assert torch.equal(test[0][0], test[0][0])


def test_landmarks_and_mask_move_with_the_image(bench):
    from dataset.abstract_dataset import DeepfakeAbstractBaseDataset

    bench.add("DemoA")
    config = bench.config(use_data_augmentation=True, data_aug={"flip_prob": 1.0}, with_landmark=True)
    dataset = DeepfakeAbstractBaseDataset(config, "train")
    points = np.tile(np.array([[5.0, 7.0]], np.float32), (81, 1))
    mask = SQUARE[..., :1].astype(np.float32) / 200
    image, moved, moved_mask = dataset.data_aug(SQUARE, points, mask)
    assert np.array_equal(image, SQUARE[:, ::-1])
    assert np.allclose(moved[0], [63 - 5, 7], atol=1)
    assert np.array_equal(moved_mask, mask[:, ::-1])
