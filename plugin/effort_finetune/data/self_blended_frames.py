"""Training frames with self-blended fakes: of which real frames, and where their landmarks are from."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from effort_finetune.core.errors import UserError
from effort_finetune.core.progress import track
from effort_finetune.core.seeding import generator
from effort_finetune.data.augment import item_seed
from effort_finetune.data.collect import FrameRow
from effort_finetune.data.dlib_faces import INSTALL
from effort_finetune.data.finder_choice import FinderChoice, choose_finder
from effort_finetune.data.frames import FrameDataset, Missing
from effort_finetune.data.picture_header import Unreadable, read_size
from effort_finetune.data.self_blending import self_blended

if TYPE_CHECKING:
    from effort_finetune.config import Settings
    from effort_finetune.host import Host

#: The label group of such fakes, for balance, weights and quotas.
GROUP = "self-blended"
POINTS = (68, 81)


class SelfBlendedFrames(FrameDataset):
    """Frames, and behind them real ones once more as self-blended fakes, drawn anew each epoch.

    Args:
        frames: The training frames.
        rows: Rows of the fakes; their path is the real frame's.
        found: Landmarks that a finder saw, by dataset and path, in pixels of the input; those of all other
            rows are stored.
    """

    def __init__(
        self, frames: FrameDataset, rows: Sequence[FrameRow], found: Mapping[tuple[str, str], np.ndarray]
    ) -> None:
        self.__dict__.update(vars(frames))
        self.rows = [*frames.rows, *rows]
        self._found = dict(found)

    def forged(self, index: int, image: np.ndarray) -> np.ndarray | Missing:
        """Blends the frame with itself where the row asks for it."""
        row = self.rows[index]
        if row.label_name != GROUP:
            return image
        points = self._found.get((row.dataset, row.path))
        if points is None:
            points = self._stored(row)
        seed, epoch = self._epoch.tolist()
        drawn = item_seed(seed, epoch if self.augmentation is not None else 0, index)
        blended = None if points is None else self_blended(image, points, drawn)
        return Missing(index, "landmarks that span no face") if blended is None else blended

    def _stored(self, row: FrameRow) -> np.ndarray | None:
        """Reads landmarks beside the frame, in pixels of the input."""
        data, picture = self.beside(row, stored_path(row.path)), self.beside(row, row.path)
        points = None if data is None else parsed(data)
        if points is None or picture is None:
            return None
        try:
            size = read_size(picture)
        except Unreadable:
            return None
        return points * (np.array([self.resolution, self.resolution]) / (size.width, size.height))


def stored_path(path: str) -> str:
    """Where DeepfakeBench keeps the landmarks of a frame."""
    return re.sub(r"\.\w+$", ".npy", path.replace("frames", "landmarks"))


def parsed(data: bytes) -> np.ndarray | None:
    """Reads landmarks: a ``.npy`` file, or the bare ``uint32`` numbers of an LMDB.

    Returns:
        ``float64[68 or 81, 2]``, (x, y); None where they are something else.
    """
    try:
        if data[:6] == b"\x93NUMPY":
            numbers = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            numbers = np.frombuffer(data, np.uint32)
        points = numbers.reshape(-1, 2).astype(np.float64)
    except (ValueError, EOFError, TypeError):
        return None
    return points if len(points) in POINTS and np.isfinite(points).all() else None


def with_self_blended(frames: FrameDataset, settings: Settings, host: Host) -> FrameDataset:
    """Adds self-blended fakes of real training frames, where they are asked for.

    Landmarks are those stored beside the crops (81 points, as DeepfakeBench keeps them, or 68); for frames
    without, dlib looks for them. A frame in which no face is seen gets no fake, and is counted.

    Args:
        frames: The training frames.
        settings: ``self_blended``, ``faces`` and ``loader`` are read.
        host: May have the 81-point model.

    Raises:
        UserError: If there is no way to landmarks, or the pictures are no faces or not ours to read.
    """
    if not settings.self_blended:
        return frames
    for name, value, wanted in (
        ("faces", settings.faces, ("cropped",)),
        ("loader", settings.loader, ("plugin",)),
        ("fit", settings.fit, (None, "crop", "pad", "squash")),  # native takes another place each time
    ):
        if value not in wanted:
            expected = " or ".join(str(word) for word in wanted if word)
            raise UserError("self_blended", got=f"{name} {value}", expected=f"{name} {expected}")
    real = [index for index, row in enumerate(frames.rows) if row.label == 0]
    draws = generator(settings.manualSeed, "self_blended")
    number = round(settings.self_blended * len(real))
    chosen = sorted(real[i] for i in torch.randperm(len(real), generator=draws)[:number].tolist())
    lacking = _without_stored(frames, chosen)
    found, finder = _looked_for(frames, lacking, host) if lacking else ({}, None)
    unseen = {index for index in lacking if _key(frames.rows[index]) not in found}
    usable = [index for index in chosen if index not in unseen]
    if not usable:
        raise UserError(
            "self_blended",
            got=f"no landmarks for any of {len(chosen)} real training frames",
            expected="crops of faces with 68 or 81 landmarks beside them, or faces that dlib finds",
        )
    rows = [_as_fake(frames.rows[index]) for index in usable]
    made = SelfBlendedFrames(frames, rows, found)
    made.protocol = {
        **frames.protocol,
        "label_map": {**frames.protocol["label_map"], GROUP: {"label_dict": 1, "class": 1}},
        "self_blended": {
            "frames": len(rows),
            "stored_landmarks": len(chosen) - len(lacking),
            "found_landmarks": len(found),
            "finder": None if finder is None else finder.name,
            "without_face": len(unseen),
        },
    }
    return made


def _without_stored(frames: FrameDataset, indices: Sequence[int]) -> list[int]:
    """Returns the rows without landmarks of 68 or 81 points beside their frame."""
    lacking = []
    for index in indices:
        row = frames.rows[index]
        data = frames.beside(row, stored_path(row.path))
        if data is None or parsed(data) is None:
            lacking.append(index)
    return lacking


def _looked_for(
    frames: FrameDataset, indices: Sequence[int], host: Host
) -> tuple[dict[tuple[str, str], np.ndarray], FinderChoice]:
    """Looks for the landmarks of some frames; those in which no face is seen are left out."""
    choice = _finder(len(indices), host)
    found = {}
    for index in track(indices, desc="landmarks", unit="frame", total=len(indices)):
        image = frames.load_rgb(index)
        faces = [] if image is None else choice.make().find([image])[0]
        if faces and faces[0].landmarks is not None:
            found[_key(frames.rows[index])] = faces[0].landmarks
    return found, choice


def _finder(frames: int, host: Host) -> FinderChoice:
    folders = [host.root / "preprocessing" / "dlib_tools"]
    for name in ("dlib81", "dlib68"):
        try:
            return choose_finder(name, folders=folders)
        except UserError:
            continue
    raise UserError(
        "self_blended",
        got=f"{frames} real training frames without landmarks, and no dlib to find them",
        expected="68 or 81 points: of the crops, or of a finder that has them (MTCNN has five)",
        next_step=INSTALL,
    )


def _as_fake(row: FrameRow) -> FrameRow:
    return replace(row, label=1, class_id=1, label_name=GROUP, video=f"{row.video}/{GROUP}")


def _key(row: FrameRow) -> tuple[str, str]:
    return row.dataset, row.path
