"""The tables of corruptions and deliveries: seeded, and more at each level."""

from __future__ import annotations

import numpy as np
import pytest

from effort_finetune.core.errors import UserError
from effort_finetune.data.corruptions import CORRUPTIONS, LEVELS, Corrupting, choose_corruptions, why_not
from effort_finetune.data.deliveries import DELIVERIES, delivered
from effort_finetune.data.picture_changes import video_codec_is_there

HERE = [name for name, entry in CORRUPTIONS.items() if not entry.of_videos or video_codec_is_there()]


def _picture(height: int = 65, width: int = 47) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 3), np.cos(columns / 4), np.sin((rows + columns) / 5)], axis=2)
    return (127 + 80 * waves).astype(np.uint8)


@pytest.mark.parametrize("name", HERE)
def test_a_corruption_is_seeded_and_grows_with_its_level(name):
    image = _picture()
    change = []
    for level in range(1, LEVELS + 1):
        one = Corrupting(name, level, seed=7)(image, "a.png")
        assert one.shape == image.shape
        assert one.dtype == np.uint8
        assert np.array_equal(one, Corrupting(name, level, seed=7)(image, "a.png"))
        change.append(np.abs(one.astype(int) - image).mean())
    assert change[0] > 0
    assert change[-1] == max(change)
    assert np.array_equal(image, _picture())


@pytest.mark.parametrize("name", ["noise", "crop", "block"])
def test_items_and_seeds_draw_their_own(name):
    image = _picture()
    draws = {Corrupting(name, 3, seed)(image, item).tobytes() for seed in (1, 2) for item in ("a", "b")}
    assert len(draws) == 4


def test_brightness_goes_both_ways_and_the_levels_of_an_item_go_one_way():
    image = _picture()
    signs = []
    for item in "abcdefgh":
        moves = [Corrupting("brightness", level, 0)(image, item).mean() - image.mean() for level in (1, 3, 5)]
        assert len(set(np.sign(moves))) == 1
        signs.append(np.sign(moves[0]))
    assert set(signs) == {-1, 1}


def test_names_are_chosen_from_the_table():
    assert choose_corruptions(["all"]) == tuple(CORRUPTIONS)
    assert choose_corruptions(["blur", "jpeg"]) == ("jpeg", "blur")
    with pytest.raises(UserError, match="did you mean 'jpeg'"):
        choose_corruptions(["jepg"])
    assert "pictures" in str(why_not("video", videos=False))
    assert why_not("jpeg", videos=False) is None


@pytest.mark.parametrize("name", DELIVERIES)
def test_a_delivery_is_seeded_or_does_not_apply(name):
    small, large = _picture(), _picture(800, 900)
    for image in (small, large):
        one, again = (delivered(image, name, seed=1, item="x", of_video=True) for _ in range(2))
        assert (one is None) == (again is None)
        assert one is None or np.array_equal(one, again)
    assert (delivered(small, name, seed=1, item="x", of_video=False) is None) == (
        name.endswith("px") or name == "h264"
    )


def test_a_screenshot_is_smaller():
    image = _picture(400, 300)
    shown = delivered(image, "screenshot", seed=1, item="x", of_video=False)
    assert shown is not None
    assert shown.shape[0] < 400
    assert shown.shape[1] < 300
