"""Cuts the faces of one source into a temporary folder: the work of one process."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from effort_finetune.core import temporaries
from effort_finetune.core.errors import UserError
from effort_finetune.data.crop_options import CropOptions
from effort_finetune.data.crop_record import SourceReport
from effort_finetune.data.crop_sources import CropSource
from effort_finetune.data.faces import Crop, crop_faces
from effort_finetune.data.fit import fit_square
from effort_finetune.data.several_pictures import Frame
from effort_finetune.data.videos import read_frames, read_stills

BATCH = 8  # frames that a finder is given at once
POINTS_OF_HOST = 81  # what DeepfakeBench reads as landmarks; other models' points are not kept
MOST_FACES = 100  # of one frame, with `which` all


@dataclass
class _Counts:
    frames: int = 0
    crops: int = 0
    no_face: int = 0
    lost: int = 0
    several: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def crop_source(
    source: CropSource, shape: str, *, target: Path, options: CropOptions
) -> tuple[SourceReport, Path | None]:
    """Crops one source.

    Args:
        source: What is cropped.
        shape: Hash of the options, for the report.
        target: The dataset's folder; the temporary one is made in it.
        options: How crops are made.

    Returns:
        The report, and the folder with ``frames`` and perhaps ``landmarks``, which is the caller's to move or
        remove; None where there are no crops.
    """
    look = source.look()
    counts, error, made = _Counts(), None, None
    folder = temporaries.folder_in(target, "crop")
    try:
        _crop_all(source, options, folder, counts)
    except UserError as problem:
        error = str(problem)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    unreadable = sum(counts.reasons.values())
    if error is None and unreadable == counts.frames:
        error = f"no picture can be decoded: {', '.join(counts.reasons) or 'there is none'}"
    if error is None and counts.crops:
        made = folder
    else:
        shutil.rmtree(folder, ignore_errors=True)
    report = SourceReport(
        title=source.title,
        root=str(source.root),
        place=source.place,
        kind=source.kind,
        split=source.split,
        look=look,
        sha256=source.sha256(),
        shape=shape,
        frames=counts.frames,
        crops=counts.crops if made else 0,
        unreadable=unreadable,
        no_face=counts.no_face,
        lost=counts.lost,
        several=counts.several,
        reasons=dict(counts.reasons),
        error=error,
        container=source.container(),
    )
    return report, made


def _crop_all(source: CropSource, options: CropOptions, folder: Path, counts: _Counts) -> None:
    finder = options.make_finder()
    for batch in _batches(_frames(source, options)):
        counts.frames += len(batch)
        counts.reasons.update(frame for _, frame in batch if isinstance(frame, str))
        readable = [(number, frame) for number, frame in batch if not isinstance(frame, str)]
        if finder is None:
            for number, image in readable:
                _save_image(fit_square(image, options.fit, size=options.size), folder, f"{number:03d}")
            counts.crops += len(readable)
            continue
        images = [image for _, image in readable]
        found = crop_faces(images, finder, size=options.size, margin=options.margin, which=options.which)
        for (number, _), frame in zip(readable, found, strict=True):
            counts.no_face += not frame.found
            counts.several += frame.found > 1
            counts.lost += frame.lost
            for place, crop in enumerate(frame.crops[:MOST_FACES]):
                # A frame's faces follow each other, and every stem stays a number, as hosts want it.
                stem = number * MOST_FACES + place if options.which == "all" else number
                _save(crop, folder, f"{stem:03d}")
                counts.crops += 1


def _frames(source: CropSource, options: CropOptions) -> Iterator[Frame]:
    paths = source.paths()
    if source.kind == "video":
        return read_frames(paths[0], count=options.count, every=options.every)
    return read_stills(paths, count=options.count, every=options.every)


def _batches(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    while batch := list(islice(frames, BATCH)):
        yield batch


def _save(crop: Crop, folder: Path, stem: str) -> None:
    _save_image(crop.image, folder, stem)
    if crop.landmarks is not None and len(crop.landmarks) == POINTS_OF_HOST:
        (folder / "landmarks").mkdir(exist_ok=True)
        np.save(folder / "landmarks" / f"{stem}.npy", crop.landmarks)


def _save_image(image: np.ndarray, folder: Path, stem: str) -> None:
    (folder / "frames").mkdir(exist_ok=True)
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise UserError(f"frame {stem} cannot be written as PNG")
    (folder / "frames" / f"{stem}.png").write_bytes(data.tobytes())
