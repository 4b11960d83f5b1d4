"""What decides how crops look and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from effort_finetune.core.crop_recipe import CropRecipe
from effort_finetune.data.face_finder import FaceFinder
from effort_finetune.data.faces import Which
from effort_finetune.data.finder_choice import WITHOUT, FinderChoice

StoredFit = Literal["crop", "pad", "squash"]


@dataclass(frozen=True)
class CropOptions:
    """How crops are made.

    Attributes:
        finder: What finds the faces; None for ``cropped`` and ``whole``.
        without: ``cropped`` takes pictures as crops made elsewhere, ``whole`` as pictures in which no face is
            looked for; None with a finder.
        count: Frames per video, evenly spaced; None with ``every``.
        every: Or every n-th frame.
        size: Side of a crop in pixels.
        margin: Side of a crop over the side of the five-point template.
        which: Faces of a frame that are cut.
        fit: How a picture that is not square becomes one, where no face is looked for.
    """

    finder: FinderChoice | None = None
    without: str | None = None
    count: int | None = 32
    every: int | None = None
    size: int = 256
    margin: float = 1.3
    which: Which = "largest"
    fit: StoredFit = "crop"

    def __post_init__(self) -> None:
        if (self.finder is None) == (self.without is None) or self.without not in (None, *WITHOUT):
            raise ValueError("give either a finder or one of cropped and whole")

    def make_finder(self) -> FaceFinder | None:
        """The finder, made once per process; None where no face is looked for."""
        return self.finder.make() if self.finder is not None else None

    def recipe(self) -> CropRecipe:
        """What index, checkpoint and protocol keep."""
        finder = self.make_finder()
        if finder is None:
            return CropRecipe(str(self.without), self.size, fit=self.fit)
        return CropRecipe(finder.name, self.size, float(self.margin), finder.model_hash)

    def shaping(self) -> dict[str, Any]:
        """All that makes other crops of the same sources; where the model lies is not part of it."""
        amount = {"num_frames": self.count, "stride": self.every, "which": self.which}
        return {**self.recipe().to_dict(), **amount}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the options in which two differ."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def model_folder(host_root: Path) -> Path:
    """Where a host keeps the 81-point model, as its readme says."""
    return host_root / "preprocessing" / "dlib_tools"
