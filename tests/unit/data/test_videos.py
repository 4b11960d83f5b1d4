"""Frames in the order of time, whatever the container and the names; whole files told from broken ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from effort_finetune.core.errors import UserError
from effort_finetune.data.containers import describe_container
from effort_finetune.data.sampling import frame_order
from effort_finetune.data.videos import frame_numbers, read_frames, read_stills

CONTAINERS = {
    ".avi": "MJPG", ".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".webm": "VP80", ".flv": "FLV1",
    ".3gp": "mp4v", ".ts": "mp4v", ".mts": "mp4v", ".wmv": "WMV2", ".mpg": "MPG1",
}  # fmt: skip


def write_video(path: Path, frames: int, size: int = 32) -> Path:
    """Frame n is grey of value 5 n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [np.full((size, size, 3), 5 * number, np.uint8) for number in range(frames)]
    if path.suffix == ".gif":
        first, *rest = map(Image.fromarray, pictures)
        first.save(path, save_all=True, append_images=rest)
        return path
    codec = cv2.VideoWriter_fourcc(*CONTAINERS[path.suffix])  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(str(path), codec, 25, (size, size))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {path.suffix}")
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def test_frames_are_the_ones_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 40)
    for options, numbers in (
        ({"count": 4}, [0, 13, 26, 39]),
        ({"every": 15}, [0, 15, 30]),
        ({"count": 99}, range(40)),
    ):
        read = list(read_frames(path, **options))
        assert [number for number, _ in read] == list(numbers)
        for number, image in read:
            assert not isinstance(image, str)
            assert abs(int(image.mean()) - 5 * number) <= 2


@pytest.mark.parametrize("suffix", [*CONTAINERS, ".gif"])
def test_every_container_is_read_from_the_first_frame_to_the_last(suffix: str, tmp_path: Path) -> None:
    read = list(read_frames(write_video(tmp_path / f"a{suffix}", 12), count=99))
    assert [number for number, _ in read] == list(range(12))
    greys = [int(image.mean()) for _, image in read if not isinstance(image, str)]
    assert np.abs(np.array(greys) - 5 * np.arange(12)).max() <= 6


@pytest.mark.parametrize("name", ["frame_{}.png", "{}.png", "clip2_{}_x.jpg", "a-{:04d}.bmp"])
def test_stills_are_taken_in_order_of_time_whatever_their_names(name: str, tmp_path: Path) -> None:
    paths = [tmp_path / name.format(number) for number in range(12)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((16, 16, 3), 10 * number, np.uint8))
    (tmp_path / "broken.png").write_bytes(b"text")
    read = list(read_stills(sorted(paths), every=1))
    assert [round(image.mean() / 10) for _, image in read if not isinstance(image, str)] == list(range(12))
    assert list(read_stills([tmp_path / "broken.png"], count=1)) == [
        (0, "no picture in a known format, or a damaged one")
    ]


@given(st.lists(st.integers(0, 10**6), unique=True), st.text("ab_-", max_size=3))
def test_numbers_in_names_are_numbers(numbers: list[int], prefix: str) -> None:
    names = sorted((f"{prefix}{number}x.png" for number in numbers), key=frame_order)
    assert names == [f"{prefix}{number}x.png" for number in sorted(numbers)]


def test_frame_numbers_are_the_hosts() -> None:
    assert frame_numbers(270, 32) == np.linspace(0, 269, 32, endpoint=True, dtype=int).tolist()
    assert frame_numbers(3, 32) == [0, 1, 2]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"text")
    with pytest.raises(UserError, match="cannot be opened.*no known container"):
        list(read_frames(tmp_path / "a.mp4", count=3))
    with pytest.raises(ValueError, match="either"):
        list(read_stills([]))
    with pytest.raises(UserError, match="no regular file"):
        list(read_frames(tmp_path, count=3))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm", ".flv", ".ts", ".gif"])
def test_a_whole_file_is_told_from_one_that_is_cut_off(suffix: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"a{suffix}", 30, size=64)
    container, whole = describe_container(path)
    assert container is not None
    assert whole
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3 | 1])
    assert describe_container(path) == (container, False)


def test_a_whole_file_of_an_unknown_codec_gets_the_command_that_converts_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "it's.avi", 5)
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"Q\x01?!").replace(b"00dc", b"00xx"))
    with pytest.raises(
        UserError, match=r"whole AVI file whose codec.*ffmpeg -i 'it'\"'\"'s.avi' -c:v libx264"
    ):
        list(read_frames(path, count=3))


def test_every_frame_of_a_gif_is_read_also_where_it_states_no_delay(tmp_path):
    """OpenCV gives the first frame alone of a GIF whose frames state a delay of nothing."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one) for one in noise]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    frames = list(read_frames(tmp_path / "a.gif", count=32))
    assert [number for number, _ in frames] == list(range(6))
    for (_, frame), picture in zip(frames, pictures, strict=True):
        assert not isinstance(frame, str)
        assert np.abs(frame.astype(int) - np.asarray(picture)).mean() < 40, "its 256 colours"
    assert [number for number, _ in read_frames(tmp_path / "a.gif", every=4)] == [0, 4]
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:60])
    with pytest.raises(UserError, match=r"cut\.gif"):
        list(read_frames(tmp_path / "cut.gif", count=3))
