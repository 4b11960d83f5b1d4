"""Frames in the order of time, whatever the container and the names; whole files told from broken ones."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin, features

from effort_finetune.core.errors import UserError
from effort_finetune.data import decode
from effort_finetune.data.containers import describe_container
from effort_finetune.data.sampling import frame_order
from effort_finetune.data.several_pictures import holds_several
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


NOISE = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
SEVERAL: dict[str, dict[str, Any]] = {
    "GIF": {},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95},
    "TIFF": {},
}


def write_several(path: Path, kind: str, pictures: np.ndarray = NOISE, **more: object) -> Path:
    """One file with all the pictures."""
    first, *rest = map(Image.fromarray, pictures)
    first.save(path, kind, save_all=True, append_images=rest, **SEVERAL[kind], **more)
    return path


@pytest.mark.parametrize("kind", SEVERAL)
def test_every_picture_of_a_file_that_holds_several_is_read(kind: str, tmp_path: Path) -> None:
    """Also of a GIF whose frames state a delay of nothing, of which OpenCV gives the first one alone."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow knows no AVIF")
    path = write_several(tmp_path / "a.bin", kind)
    assert holds_several(path) == ("pages" if kind == "TIFF" else "animation")
    frames = list(read_frames(path, count=32))
    assert [number for number, _ in frames] == list(range(6))
    for (_, frame), picture in zip(frames, NOISE, strict=True):
        assert not isinstance(frame, str)
        far = np.abs(frame.astype(int) - picture).mean()
        assert far < {"GIF": 40, "AVIF": 60}.get(kind, 1e-9), "256 colours, or lost colour"
    assert [number for number, _ in read_frames(path, every=4)] == [0, 4]
    assert [number for number, _ in read_stills([path], every=4)] == [0, 4]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"a\.bin"):
        list(read_frames(path, count=3))
    ((number, reason),) = read_stills([path], count=3)
    assert (number, type(reason)) == (0, str)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "BMP"])
def test_a_picture_alone_does_not_hold_several(kind: str, tmp_path: Path) -> None:
    Image.fromarray(NOISE[0]).save(tmp_path / "a.png", kind)
    assert holds_several(tmp_path / "a.png") is None
    assert holds_several(tmp_path / "none.png") is None
    assert holds_several(tmp_path) is None


def test_a_number_of_frames_that_is_only_claimed_costs_nothing(tmp_path: Path) -> None:
    path = write_several(tmp_path / "a.png", "PNG")
    data = path.read_bytes()
    at = data.index(b"acTL")
    body = b"acTL" + (2**31 - 1).to_bytes(4, "big") + bytes(4)
    path.write_bytes(data[:at] + body + zlib.crc32(body).to_bytes(4, "big") + data[at + 16 :])
    read = list(read_frames(path, every=1))
    assert [number for number, frame in read if not isinstance(frame, str)] == list(range(6))
    assert len(read) <= 7


def test_an_animation_that_is_cut_off_gives_what_is_there_and_counts_the_rest(tmp_path: Path) -> None:
    path = write_several(tmp_path / "a.gif", "GIF")
    path.write_bytes(path.read_bytes()[:10000])
    kinds = [type(frame) for _, frame in read_frames(path, every=1)]
    assert kinds == [np.ndarray] * 3 + [str]


def test_small_versions_and_masks_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    subfiles = [0, 1, 0, 4]  # a page, its small version, a page, a mask
    with TiffImagePlugin.AppendingTiffWriter(str(path)) as written:
        for picture, kind in zip(NOISE[: len(subfiles)], subfiles, strict=True):
            Image.fromarray(picture).save(written, "TIFF", tiffinfo={254: kind})
            written.newFrame()
    frames = [frame for _, frame in read_frames(path, count=32)]
    assert np.array_equal(np.asarray(frames), NOISE[[0, 2]])


def test_a_page_that_is_too_large_is_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 40 * 40)
    first, large = Image.fromarray(NOISE[0]), Image.new("RGB", (41, 41))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[large, first])
    kinds = [type(frame) for _, frame in read_frames(tmp_path / "a.tif", count=32)]
    assert kinds == [np.ndarray, str, np.ndarray]
