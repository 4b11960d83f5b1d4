"""How the pictures of a dataset were cut: what index, checkpoint and protocol keep of it."""

from __future__ import annotations

from collections.abc import Mapping
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


def recipe_warning(trained: CropRecipe | None, tested: CropRecipe | None, name: str) -> str | None:
    """A sentence where a dataset was cut by another recipe than the weights were trained on.

    Args:
        trained: Recipe of the training data, where it is known.
        tested: Recipe of the dataset, where it is known.
        name: Dataset.
    """
    if trained is None or tested is None or trained == tested:
        return None
    return (
        f"{name} was cut by another recipe ({tested}) than the training data ({trained}): "
        "a part of the difference in scores is that of the crops"
    )
