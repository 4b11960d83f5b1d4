from itertools import pairwise

import pytest

from effort_finetune.data.sampling import choose_frames, frame_order, take_frames


@pytest.mark.parametrize(
    ("total", "asked", "expected"),
    [
        (32, 8, [0, 4, 8, 12, 16, 20, 24, 28]),
        (10, 4, [0, 2, 5, 7]),
        (3, 8, [0, 1, 2]),
        (5, 1, [0]),
        (1, 1, [0]),
        (0, 4, []),
    ],
)
def test_uniform_spreads_over_the_whole_video(total: int, asked: int, expected: list[int]) -> None:
    assert choose_frames(total, asked, "uniform") == expected


@pytest.mark.parametrize("total", [1, 7, 32, 270, 1001])
@pytest.mark.parametrize("asked", [1, 8, 32, 100])
def test_uniform_is_even(total: int, asked: int) -> None:
    chosen = choose_frames(total, asked, "uniform")
    assert len(chosen) == len(set(chosen)) == min(total, asked)
    steps = {after - before for before, after in pairwise(chosen)}
    assert max(steps, default=0) - min(steps, default=0) <= 1
    # No stretch at the end is left unseen: that is what the host's own sampling does.
    assert total - chosen[-1] <= -(-total // asked)


def test_first_is_the_hosts_choice() -> None:
    assert choose_frames(32, 8, "first") == list(range(8))


def test_unknown_sampling_and_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="sampling"):
        choose_frames(10, 2, "random")
    with pytest.raises(ValueError, match="1 or more"):
        choose_frames(10, 0, "uniform")


def test_frames_are_ordered_by_number_with_any_separator() -> None:
    paths = ["a/frames/v/10.png", "a\\frames\\v\\9.png", "a/frames/v/100.png", "a/frames/v/x.png"]
    assert sorted(paths, key=frame_order) == [paths[1], paths[0], paths[2], paths[3]]
    assert take_frames(paths, 2, "uniform") == [paths[1], paths[2]]


def test_names_that_are_no_numbers_are_ordered_by_the_numbers_in_them() -> None:
    names = [f"v/frame_{number}.png" for number in range(12)]
    assert sorted(sorted(names), key=frame_order) == names
    mixed = ["v/a1b2.png", "v/a1b10.png", "v/b.png", "v/7.png", "v/2x.png"]
    assert sorted(mixed, key=frame_order) == ["v/7.png", "v/2x.png", "v/a1b2.png", "v/a1b10.png", "v/b.png"]
