"""From a folder of videos, ``real/`` and ``fake/``, to face crops in DeepfakeBench's layout."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from effort_finetune.core import temporaries
from effort_finetune.core.errors import RunFailure, UserError
from effort_finetune.core.files import ensure_writable_dir, write_json
from effort_finetune.core.progress import track
from effort_finetune.data.faces import Crop, LandmarkFinder, NoFace, crop_face, dlib_finder
from effort_finetune.data.videos import find_videos, read_frames

CLASSES = ("real", "fake")


@dataclass(frozen=True)
class CropOptions:
    """How crops are made.

    Attributes:
        faces: ``dlib`` finds and aligns them; ``cropped`` takes the frames as crops made elsewhere.
        predictor: The 81-point model, for ``dlib``.
        count: Frames per video, evenly spaced; None with ``every``.
        every: Or every n-th frame.
        size: Side of a crop in pixels.
        margin: Side of a crop over the side of the five-point template.
    """

    faces: Literal["dlib", "cropped"] = "dlib"
    predictor: Path | None = None
    count: int | None = 32
    every: int | None = None
    size: int = 256
    margin: float = 1.3

    def finder(self) -> LandmarkFinder | None:
        """The landmark finder; None for frames that are crops.

        Raises:
            UserError: dlib or its model is missing.
        """
        if self.faces == "cropped":
            return None
        if self.predictor is None:
            raise UserError(
                "no landmark model", expected="--predictor shape_predictor_81_face_landmarks.dat",
                next_step="give the file, or use --faces cropped for crops made elsewhere",
            )  # fmt: skip
        return dlib_finder(self.predictor)

    def shaping(self) -> dict[str, Any]:
        """What decides how crops look and how many there are; the predictor's file may move."""
        return {name: value for name, value in asdict(self).items() if name != "predictor"}


@dataclass(frozen=True)
class VideoReport:
    """What became of one video.

    Attributes:
        name: Its name in the dataset, ``real/0001``.
        frames: Frames taken of it.
        crops: Crops written.
        unreadable: Frames that cannot be decoded.
        no_face: Frames without a face.
        lost: Frames whose crop showed no face again.
        error: Why the video could not be read.
        done_before: It was there from an earlier run.
    """

    name: str
    frames: int = 0
    crops: int = 0
    unreadable: int = 0
    no_face: int = 0
    lost: int = 0
    error: str | None = None
    done_before: bool = False


def crop_dataset(source: Path, target: Path, options: CropOptions, *, workers: int = 1) -> list[VideoReport]:
    """Crops every video of ``<source>/real`` and ``<source>/fake``; a second run does only what is left.

    Writes ``<target>/<real|fake>/frames/<video>/<number>.png``, with dlib also
    ``landmarks/<video>/<number>.npy``, and ``<target>/crops.json`` with the options and the reports; that
    of a video that is there from an earlier run has the counts of that run, where it came to write them.

    Args:
        source: Folder with videos, or folders of images, under ``real/`` and ``fake/``, at any depth.
        target: The dataset's folder, ``<rgb_dir>/<dataset>``.
        options: How crops are made.
        workers: Processes.

    Raises:
        UserError: No videos, two videos of one name, no landmark model, a target that cannot be written, or
            that holds crops made with other options.
        RunFailure: A process was killed; what it had finished is kept.
    """
    videos = list(_videos(source))
    _finder(options)  # its errors belong here, not into the reports of all videos
    ensure_writable_dir(target, what="folder of the crops", flag="--rgb_dir")
    record = target / "crops.json"
    earlier = _earlier_reports(record, options)
    _write_record(record, options, (), earlier)
    reports: list[VideoReport] = []
    try:
        for report in _crop_all(videos, target, options, workers):
            reports.append(_with_earlier_counts(report, earlier))
    finally:  # a run that is stopped leaves the counts of what it finished
        _write_record(record, options, reports, earlier)
    return reports


def _crop_all(
    videos: Sequence[tuple[str, str, Path]], target: Path, options: CropOptions, workers: int
) -> Iterator[VideoReport]:
    job = partial(_crop_video, target=target, options=options)
    if workers <= 1:
        yield from (job(*video) for video in track(videos, desc="cropping", unit="video"))
        return
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(job, *zip(*videos, strict=True))
        try:
            yield from track(results, desc="cropping", total=len(videos), unit="video")
        except BrokenProcessPool as error:
            raise RunFailure(
                "a process that cuts faces was killed, by want of memory or by a video that crashes the "
                "decoder; what was finished is kept; next: run it again, with fewer --jobs"
            ) from error


def _earlier_reports(record: Path, options: CropOptions) -> dict[str, VideoReport]:
    """What an earlier run with the same options wrote into ``crops.json``, by the video's name."""
    if not record.is_file():
        return {}
    tree = json.loads(record.read_text(encoding="utf-8"))
    earlier, wanted = tree["options"], options.shaping()
    differing = [name for name in wanted if earlier[name] != wanted[name]]
    if differing:
        raise UserError(
            f"{record.parent} holds crops made with other options",
            got=", ".join(f"{name} {earlier[name]}" for name in differing),
            expected=", ".join(f"{name} {wanted[name]}" for name in differing),
            next_step="go on with the same options, choose another NAME, or remove the folder",
        )
    return {report["name"]: VideoReport(**report) for report in tree["videos"]}


def _with_earlier_counts(report: VideoReport, earlier: Mapping[str, VideoReport]) -> VideoReport:
    """A video that is there says how many crops it has; what was dropped from it, the earlier run knows."""
    known = earlier.get(report.name)
    if report.done_before and known is not None and known.crops == report.crops:
        return replace(known, done_before=True)
    return report


def _write_record(
    record: Path, options: CropOptions, reports: Sequence[VideoReport], earlier: Mapping[str, VideoReport]
) -> None:
    """Writes ``crops.json``: this run's reports, then earlier ones of crops that this run did not come to."""
    told = {report.name for report in reports}
    left = [report for name, report in earlier.items() if name not in told and report.crops]
    videos = [asdict(report) for report in (*reports, *left)]
    write_json(record, {"options": options.shaping(), "videos": videos})


def _videos(source: Path) -> Iterator[tuple[str, str, Path]]:
    """(class, name, path); a name is the path below the class's folder, joined by ``__``."""
    seen: dict[tuple[str, str], Path] = {}
    for label in CLASSES:
        folder = source / label
        if not folder.is_dir():
            raise UserError(
                f"folder {folder} not found", expected="the folders real/ and fake/ with videos in them",
                next_step="sort the videos into the two folders",
            )  # fmt: skip
        for path in find_videos(folder):
            _refuse_undecodable(path)
            name = "__".join(path.relative_to(folder).with_suffix("").parts)
            if (label, name) in seen:
                raise UserError(
                    f"two videos of the name {name!r}", got=f"{seen[label, name]} and {path}",
                    expected="one name each", next_step="rename one of them",
                )  # fmt: skip
            seen[label, name] = path
            yield label, name, path
    if not seen:
        raise UserError(
            f"no videos in {source}", expected="videos or folders of images in real/ and fake/",
            next_step="check the folder",
        )  # fmt: skip


def _refuse_undecodable(path: Path) -> None:
    """OpenCV crashes the process on a name that is not UTF-8, and neither index nor LMDB could hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            "name of a video is not UTF-8", got=ascii(str(path)), expected="a name that UTF-8 can hold",
            next_step="rename it",
        ) from error  # fmt: skip


@lru_cache(maxsize=1)
def _finder(options: CropOptions) -> LandmarkFinder | None:
    """One landmark model per process: it takes a second to load."""
    return options.finder()


def _crop_video(label: str, name: str, path: Path, *, target: Path, options: CropOptions) -> VideoReport:
    title = f"{label}/{name}"
    frames, landmarks = (target / label / kind / name for kind in ("frames", "landmarks"))
    if frames.is_dir():
        return VideoReport(title, crops=sum(1 for _ in frames.glob("*.png")), done_before=True)
    find = _finder(options)
    read = unreadable = no_face = lost = 0
    with temporaries.folder(target, "crop") as folder:
        images, points = folder / "frames", folder / "landmarks"
        try:
            for number, image in read_frames(path, count=options.count, every=options.every):
                read += 1
                if image is None:
                    unreadable += 1
                    continue
                try:
                    crop = _crop(image, find, options)
                except NoFace as problem:
                    no_face += str(problem) == "in_frame"
                    lost += str(problem) == "in_crop"
                    continue
                _save(crop, images, points, number)
        except UserError as error:
            return VideoReport(title, error=str(error))
        if read == unreadable:
            return VideoReport(title, read, unreadable=unreadable, error=f"no frame of {path} can be decoded")
        crops = read - unreadable - no_face - lost
        if crops:
            for made, place in ((points, landmarks), (images, frames)):  # frames last: they mean "done"
                if made.is_dir():
                    shutil.rmtree(place, ignore_errors=True)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(made, place)
    return VideoReport(title, read, crops, unreadable, no_face, lost)


def _crop(image: np.ndarray, find: LandmarkFinder | None, options: CropOptions) -> Crop:
    if find is not None:
        return crop_face(image, find, size=options.size, margin=options.margin)
    interpolation = cv2.INTER_AREA if min(image.shape[:2]) > options.size else cv2.INTER_CUBIC
    return Crop(
        cv2.resize(image, (options.size, options.size), interpolation=interpolation), np.empty((0, 2))
    )


def _save(crop: Crop, images: Path, points: Path, number: int) -> None:
    images.mkdir(exist_ok=True)
    done, data = cv2.imencode(".png", cv2.cvtColor(crop.image, cv2.COLOR_RGB2BGR))
    if not done:
        raise UserError(f"frame {number} cannot be written as PNG")
    (images / f"{number:03d}.png").write_bytes(data.tobytes())
    if len(crop.landmarks):
        points.mkdir(exist_ok=True)
        np.save(points / f"{number:03d}.npy", crop.landmarks)


def summary(reports: Sequence[VideoReport]) -> str:
    """One line with the totals."""
    done = [report for report in reports if report.error is None]
    none = [report.name for report in done if not report.crops]
    parts = [
        f"{sum(report.crops for report in done)} crops of {len(done)} videos",
        f"{sum(report.no_face for report in done)} frames without a face",
        f"{sum(report.lost for report in done)} crops in which no face was found again",
        f"{sum(report.unreadable for report in done)} frames that cannot be decoded",
        f"{len(none)} videos without any crop",
        f"{len(reports) - len(done)} videos unreadable",
    ]
    return "; ".join(parts)
