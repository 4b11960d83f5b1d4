"""How the pictures of a dataset were cut: what index, checkpoint and protocol keep of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class CropRecipe:
    """The recipe of a dataset's crops; two datasets of one recipe show faces alike.

    Attributes:
        finder: ``dlib81``, ``dlib68``, ``mtcnn``; ``cropped`` for crops made elsewhere, ``whole`` for
            pictures in which no face was looked for.
        size: Side of a crop in pixels.
        margin: Side of the crop over the side of the five-point template; None where no face was looked for.
        model_sha256: Of the finder's model, in hexadecimal; None where no face was looked for.
        fit: How a picture that is not square became one (``crop``, ``pad``, ``squash``, ``native``), where no
            face was looked for; None otherwise.
    """

    finder: str
    size: int
    margin: float | None = None
    model_sha256: str | None = None
    fit: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON types only, in the order above."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Any) -> CropRecipe | None:
        """The recipe in a file; None where it is none, such as that of a dataset made elsewhere."""
        if not isinstance(tree, Mapping):
            return None
        known: dict[str, Any] = {field.name: tree.get(field.name) for field in fields(cls)}
        right = (
            isinstance(known["finder"], str)
            and isinstance(known["size"], int)
            and isinstance(known["margin"], (int, float, type(None)))
            and isinstance(known["model_sha256"], (str, type(None)))
            and isinstance(known["fit"], (str, type(None)))
        )
        return cls(**known) if right else None

    def __str__(self) -> str:
        parts = [self.finder, f"{self.size} px"]
        if self.margin is not None:
            parts.append(f"margin {self.margin:g}")
        if self.fit is not None:
            parts.append(f"fit {self.fit}")
        if self.model_sha256 is not None:
            parts.append(f"model {self.model_sha256[:8]}")
        return ", ".join(parts)


def stated(recipes: Iterable[CropRecipe | None]) -> dict[str, Any] | None:
    """What weights state of the data they were trained on: one recipe, or ``several`` of them.

    Args:
        recipes: Of each training dataset; None where nobody knows.

    Returns:
        JSON types only; None where no recipe is known.
    """
    known = list(dict.fromkeys(recipe for recipe in recipes if recipe is not None))
    if len(known) > 1:
        return {"several": [recipe.to_dict() for recipe in known]}
    return known[0].to_dict() if known else None


def recipes_in(tree: Any) -> tuple[CropRecipe, ...]:
    """The recipes that :func:`stated` wrote; empty where there are none."""
    several = tree.get("several") if isinstance(tree, Mapping) else None
    trees = several if isinstance(several, list) else [tree]
    return tuple(recipe for entry in trees if (recipe := CropRecipe.from_dict(entry)) is not None)


def recipe_warning(trained: Sequence[CropRecipe], tested: CropRecipe | None, name: str) -> str | None:
    """A sentence where a dataset was cut by another recipe than the weights were trained on.

    Args:
        trained: Recipes of the training data; empty where nobody knows.
        tested: Recipe of the dataset, where it is known.
        name: Dataset.
    """
    if not trained or tested is None or any(_alike(tested, recipe) for recipe in trained):
        return None
    return (
        f"{name} was cut by another recipe ({tested}) than the training data "
        f"({' and '.join(map(str, trained))}): a part of the difference in scores is that of the crops"
    )


def _alike(one: CropRecipe, other: CropRecipe) -> bool:
    """Of crops made elsewhere nobody knows the recipe: they differ for sure from whole pictures alone."""
    if "cropped" in (one.finder, other.finder) and one.finder != other.finder:
        return "whole" not in (one.finder, other.finder)
    return one == other
