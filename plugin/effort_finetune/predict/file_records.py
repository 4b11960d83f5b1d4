"""What is said of one file: typed, made of plain values, the same in Python, JSON lines and CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["real", "fake", "unsure"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class FrameScore:
    """One crop that was scored.

    Attributes:
        frame: Number of the frame in the video, of the page in a picture of several, from 0.
        box: Left, top, right, bottom of the face in pixels; None where the whole picture was taken.
        prob: Probability of fake.
    """

    frame: int
    box: Box | None
    prob: float


@dataclass(frozen=True)
class FaceRecord:
    """One face, followed over the frames, or the whole picture.

    Attributes:
        prob: Mean probability of fake of its frames.
        calibrated: The same through the calibration of the weights; None where they carry none.
        verdict: Of this face alone.
        reasons: Why it is ``unsure``.
        frames: Its frames, in order of time.
        distance: How far it lies from the validation set of the weights, of which 95 % is below 1; None where
            they keep no statistics of it.
    """

    prob: float
    calibrated: float | None
    verdict: Verdict
    reasons: tuple[str, ...]
    frames: tuple[FrameScore, ...]
    distance: float | None = None


@dataclass(frozen=True)
class AnyFace:
    """The most suspicious face of a file with several.

    Attributes:
        prob: The largest mean probability of fake over the faces.
        verdict: ``fake`` where any face is called so.
        faces: How many there are.
        false_positive_rate: How often a file of so many real faces would be called fake, were they
            independent: 1 - (1 - rate)^faces; None where the weights state no rate of their threshold.
    """

    prob: float
    verdict: Verdict
    faces: int
    false_positive_rate: float | None


@dataclass(frozen=True)
class Stability:
    """The file scored again as platforms would deliver it.

    Attributes:
        same: Share of the deliveries with the verdict of the same frames as they are.
        deliveries: Mean probability of fake by delivery; None where no face was found in it any more.
        frames: How many frames of the file were delivered.
    """

    same: float | None
    deliveries: Mapping[str, float | None]
    frames: int


@dataclass(frozen=True)
class HeatRecord:
    """Where the detector looked in one crop.

    Attributes:
        face: Number of the face in ``faces``, from 0.
        frame: Number of the frame: the face's most suspicious one.
        method: How the map was made.
        figure: How often such a map's peak lies in a forged region, and where that was measured.
        peak: Of the map, right and down, as shares of the crop's sides; None of a map that is all 0.
        picture: The PNG, the map over the crop.
        numbers: ``float32[side, side]``, 0 to 1, as NumPy writes it.
    """

    face: int
    frame: int
    method: str
    figure: str
    peak: tuple[float, float] | None
    picture: str
    numbers: str


@dataclass(frozen=True)
class FileRecord:
    """One file.

    Attributes:
        file: Its path as it was given or found.
        sha256: Of its bytes; None where they cannot be read.
        status: ``scored``, ``no_face`` or ``unreadable``.
        verdict: That of its largest face (or of the whole picture).
        reasons: Why it is ``unsure``, or why there is nothing to say.
        score: Mean probability of fake of the largest face.
        calibrated: The same through the calibration of the weights; None where they carry none.
        threshold: Above it (of ``calibrated`` where there is one) a face is called fake.
        threshold_source: Where that number comes from.
        kind: ``picture`` or ``video``; None where it is neither.
        frames_read: Frames, or pages of a picture, that were looked at.
        frames_without_face: Of these, the ones without a face.
        frames_undecodable: Frames that the decoder gave no picture of.
        faces: The largest first; with the whole picture, one.
        any_face: Of a file with several faces; None with one or none.
        stability: Where it was asked for.
        heat_maps: Where they were asked for, and a method of this tower is better than chance.
        label: What the folders above the file say; None where they say nothing or were not asked.
    """

    file: str
    sha256: str | None
    status: Literal["scored", "no_face", "unreadable"]
    verdict: Verdict
    reasons: tuple[str, ...]
    score: float | None
    calibrated: float | None
    threshold: float
    threshold_source: str
    kind: Literal["picture", "video"] | None = None
    frames_read: int = 0
    frames_without_face: int = 0
    frames_undecodable: int = 0
    faces: tuple[FaceRecord, ...] = ()
    any_face: AnyFace | None = None
    stability: Stability | None = None
    heat_maps: tuple[HeatRecord, ...] = ()
    label: Literal["real", "fake"] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types only."""
        return asdict(self)
