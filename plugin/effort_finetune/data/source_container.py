"""What the file that crops were made of tells without its content; the crops are all of one kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from effort_finetune.core.errors import UserError
from effort_finetune.data.collect import FrameRow
from effort_finetune.data.confounds import ConfoundScore, facts_score
from effort_finetune.data.container import Facts, picture_facts
from effort_finetune.data.containers import describe_container
from effort_finetune.data.decode import read_bytes
from effort_finetune.data.findings import Finding
from effort_finetune.data.index import DatasetIndex
from effort_finetune.data.picture_header import Unreadable
from effort_finetune.data.several_pictures import holds_several
from effort_finetune.data.videos import open_video

#: Of a video or a picture; what a kind of file does not have is 0.
SOURCE = (
    *("format", "codec", "width", "height", "aspect", "frames_per_second"),
    *("jpeg_table", "exif", "bytes_per_pixel"),
)


def source_container(path: Path, *, video: bool) -> Facts | None:
    """Container, codec, size, aspect, rate, JPEG quality, EXIF and bytes per pixel of a video or picture.

    Args:
        path: The file.
        video: Whether it is one that the video decoder reads.

    Returns:
        Values of :data:`SOURCE`; None where it cannot be read.
    """
    try:
        if not video or holds_several(path):
            return picture_facts(read_bytes(path))
        capture = open_video(path)
    except (UserError, Unreadable, OSError):
        return None
    try:
        width, height, rate, frames, code = (
            capture.get(key)
            for key in (
                *(cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS),
                *(cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FOURCC),
            )
        )
    finally:
        capture.release()
    pixels = width * height * max(frames, 1)  # the container's own number of frames
    return {
        "format": _container(path),
        "codec": _plain((int(code) & 0xFFFFFFFF).to_bytes(4, "little")),
        "width": width,
        "height": height,
        "aspect": width / max(height, 1),
        "frames_per_second": round(rate, 3) if math.isfinite(rate) else 0.0,
        "bytes_per_pixel": path.stat().st_size / max(pixels, 1),
    }


def source_score(index: DatasetIndex, labels: Mapping[str, int], *, seed: int) -> ConfoundScore | None:
    """How well the files that the crops were made of tell the classes apart, each video once.

    Args:
        index: States what ``prepare`` saw of them.
        labels: 0 real, 1 fake, by the video's id.
        seed: Of the videos drawn and of the forest.

    Returns:
        The score; None where the index says nothing of its sources.
    """
    stated = {
        video: checked_facts(index.sources.get(video.removeprefix(f"{index.name}/"))) for video in labels
    }
    if not any(stated.values()):
        return None
    return facts_score(list(stated.values()), SOURCE, list(labels.values()), list(stated), seed=seed)


def source_sentence(score: ConfoundScore) -> str:
    """For people: what the sources tell, and how well."""
    return score.sentence(
        "the files that the crops were made of",
        "container, codec, size, aspect, frame rate, JPEG quality, EXIF and bytes per pixel",
    )


def sources_of_test(
    index: DatasetIndex, rows: Sequence[FrameRow], split: str, *, seed: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a result's protocol and warnings say of the sources of a test; nothing where nobody knows."""
    labels = {row.video: row.label for row in rows} if split == "test" else {}
    score = source_score(index, labels, seed=seed)
    if score is None:
        return {}, ()
    return {"sources": score.to_dict()}, (source_sentence(score),) if score.warns else ()


def source_findings(score: ConfoundScore) -> Iterator[Finding]:
    """A warning where the sources tell the classes apart."""
    if score.warns:
        yield Finding(
            "warning", "source_confound", None, score.pictures, source_sentence(score),
            "take both classes from files of the same kinds: crops of one kind hide the difference, and the "
            "traces of codec and size stay in their pixels",
        )  # fmt: skip


def checked_facts(tree: Any) -> Facts | None:
    """What a file states of a source, where these are texts and numbers; None otherwise."""
    if not isinstance(tree, Mapping):
        return None
    plain = {
        name: value
        for name in SOURCE
        if isinstance(value := tree.get(name), str)
        or (isinstance(value, (int, float)) and math.isfinite(value))
    }
    return plain or None


def _container(path: Path) -> str:
    """The container, of an MP4 with the brand that its writer gave it."""
    name = describe_container(path)[0]
    if name != "MP4":
        return name or path.suffix[1:].upper()
    with open(path, "rb") as stream:
        head = stream.read(12)
    return f"MP4 {_plain(head[8:12])}" if head[4:8] == b"ftyp" else "MP4"


def _plain(code: bytes) -> str:
    return "".join(chr(byte) if 32 < byte < 127 else "" for byte in code)
