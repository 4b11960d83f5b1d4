"""How the pictures are cut: by the recipe that the weights state, or by an assumption that is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effort_finetune.core.crop_recipe import CropRecipe
from effort_finetune.core.errors import UserError
from effort_finetune.data.finder_choice import FACES, FINDERS, WITHOUT, FinderChoice, choose_finder
from effort_finetune.data.fit import Fit

SIZE, MARGIN = 256, 1.3  # DeepfakeBench's crops


@dataclass(frozen=True)
class ChosenFaces:
    """What is done to a picture before it is scored.

    Attributes:
        finder: Finds the faces; None for the whole picture.
        size: Side of a crop in pixels.
        margin: Side of a crop over the side of the five-point template.
        fit: How the whole picture becomes a square.
        why: Where that comes from, for the user.
    """

    finder: FinderChoice | None
    size: int
    margin: float
    fit: Fit
    why: str

    def line(self) -> str:
        """One line for the user."""
        if self.finder is None:
            return f"whole pictures, fit {self.fit}: {self.why}"
        return f"faces by {self.finder.name}, margin {self.margin:g}, {self.size} px: {self.why}"


def choose_faces(
    asked: str,
    stated: Mapping[str, Any] | None,
    told_fit: str | None,
    *,
    predictor: Path | None = None,
    folders: Sequence[Path] = (),
) -> ChosenFaces:
    """Decides how pictures are cut.

    Args:
        asked: ``auto`` or what the user wants instead.
        stated: The crop recipe in the weights.
        told_fit: How pictures became squares in the training of the weights, where they say so.
        predictor: A landmark model of dlib.
        folders: Where hosts keep the 81-point model.

    Raises:
        UserError: An unknown choice, or a finder that is not installed.
    """
    if asked not in FACES:
        raise UserError("--faces", got=repr(asked), expected=f"one of {', '.join(FACES)}")
    recipe = CropRecipe.from_dict(stated)
    size = recipe.size if recipe is not None else SIZE
    margin = recipe.margin if recipe is not None and recipe.margin is not None else MARGIN
    fits = [recipe.fit if recipe is not None else None, told_fit]
    fit: Fit = next((f for f in ("crop", "pad", "squash", "native") if f in fits), "crop")
    if asked in WITHOUT:
        return ChosenFaces(None, size, margin, fit, "it was asked for")
    if asked in FINDERS or predictor is not None:
        return ChosenFaces(
            choose_finder(asked, predictor=predictor, folders=folders), size, margin, fit, "it was asked for"
        )
    if recipe is not None and recipe.finder in FINDERS:
        finder = choose_finder(recipe.finder, folders=folders)
        same = recipe.model_sha256 in (None, finder.make().model_hash)
        why = "the weights' own recipe" if same else "the weights' own recipe, with another model file"
        return ChosenFaces(finder, size, margin, fit, why)
    if recipe is not None and recipe.finder == "whole":
        return ChosenFaces(None, size, margin, fit, "the weights were trained so")
    if recipe is None and told_fit is not None:
        return ChosenFaces(None, size, margin, fit, "the weights were trained on whole pictures of a folder")
    known = "state no crop recipe" if recipe is None else "were trained on crops made elsewhere"
    finder = choose_finder("auto", folders=folders)
    return ChosenFaces(finder, size, margin, fit, f"assumed, since the weights {known}")
