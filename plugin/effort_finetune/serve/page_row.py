"""One row of the page: a file that was dropped, from its name to its verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from effort_finetune.predict.file_records import FileRecord

#: ``expected``: announced, its bytes are not here; ``waiting``: they are; ``refused``: it will get no record.
State = Literal["expected", "waiting", "scoring", "done", "refused"]
UNFINISHED: tuple[State, ...] = ("expected", "waiting", "scoring")
Label = Literal["real", "fake"]


@dataclass(frozen=True)
class Batch:
    """Files that were dropped together.

    Attributes:
        id: Its number; later ones are larger.
        started: Local time, ISO 8601.
        stability: Whether its files are scored again as platforms would deliver them.
        about: What judges them: name and hash of the weights, how faces are cut, the threshold.
    """

    id: int
    started: str
    stability: bool
    about: dict[str, Any]


@dataclass(frozen=True)
class CropPicture:
    """A crop that was scored, as a picture beside the row.

    Attributes:
        face: Place of its face in the record.
        frame: Number of the frame.
        prob: Probability of fake.
        image: Name of the JPEG.
        heat: Name of the PNG that lies over it and shows where the model looked; None without one.
    """

    face: int
    frame: int
    prob: float
    image: str
    heat: str | None = None


@dataclass(frozen=True)
class RowPictures:
    """What is shown of a file when the file itself is gone.

    Attributes:
        preview: Name of a small JPEG of the frame with the most suspicious view of the largest face.
        frame: Number of that frame.
        width: Of the frame itself, in pixels, in which the boxes of the record are given.
        height: The same.
        crops: Of the largest face all, of others the most suspicious.
    """

    preview: str | None = None
    frame: int = 0
    width: int = 0
    height: int = 0
    crops: tuple[CropPicture, ...] = ()


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        id: Its number.
        batch: Of the files it was dropped with.
        name: As the browser gave it, with its folders; what cannot be seen is escaped.
        size: In bytes.
        state: How far it is.
        note: Why it was refused, or has to be sent again.
        record: What ``predict`` says of it; its ``file`` is :attr:`name`.
        label: What a person says it is, against the verdict.
        pictures: Small pictures of it.
        seconds: From its turn to its verdict.
        kept: Whether its bytes are still here.
        revision: Grows with every change of any row.
    """

    id: int
    batch: int
    name: str
    size: int
    state: State
    note: str | None = None
    record: FileRecord | None = None
    label: Label | None = None
    pictures: RowPictures = field(default_factory=RowPictures)
    seconds: float | None = None
    kept: bool = False
    revision: int = 0

    def labelled(self) -> FileRecord | None:
        """Returns the record with the label of a person in it."""
        return None if self.record is None else replace(self.record, label=self.label)

    def summary(self) -> dict[str, Any]:
        """Returns what the table shows, as JSON types."""
        said = self.record
        shown: dict[str, Any] = {
            "id": self.id, "batch": self.batch, "name": self.name, "size": self.size, "state": self.state,
            "note": self.note, "label": self.label, "seconds": self.seconds, "kept": self.kept,
        }  # fmt: skip
        if said is not None:
            shown |= {
                "status": said.status,
                "kind": said.kind,
                "verdict": said.verdict,
                "prob": said.score if said.calibrated is None else said.calibrated,
                "faces": len(said.faces) if said.faces and said.faces[0].frames[0].box else 0,
                "any_face": said.any_face.verdict if said.any_face else None,
                "same": said.stability.same if said.stability else None,
                "reasons": list(said.reasons),
            }
        return shown
