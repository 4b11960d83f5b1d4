"""The training augmentation as one pipeline, the same under albumentations 1.x and 2.x."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from effort_finetune.config.augmentations import STEPS
from effort_finetune.core.errors import UserError, did_you_mean
from effort_finetune.core.seeding import derive

if TYPE_CHECKING:
    from effort_finetune.config import DataAug

SAMPLE = (224, 224, 3)  # of a picture that a transform is tried on


class Augmentation:
    """A pipeline over ``uint8[H, W, 3]`` RGB images whose draws depend on the given seed alone.

    Args:
        data_aug: The settings' ``data_aug`` block.
    """

    def __init__(self, data_aug: DataAug) -> None:
        self._data_aug = data_aug
        # Made here and not at the first image, so that forked workers inherit the library's import.
        self._pipeline: Any = _compose(data_aug)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Augments one image.

        Args:
            image: ``uint8[H, W, 3]``, RGB.
            seed: Any integer from 0; one seed always gives one result, in whatever process.

        Returns:
            ``uint8[H, W, 3]``, RGB.
        """
        if self._pipeline is None:
            self._pipeline = _compose(self._data_aug)
        if hasattr(self._pipeline, "set_random_state"):
            # Not `set_random_seed`: it starts every step from the one seed, so that all steps draw the same
            # number, and an image that is rotated (p 0.2) is always flipped (p 0.3) as well.
            self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
            return self._pipeline(image=image)["image"]
        with _global_seed(seed):
            return self._pipeline(image=image)["image"]

    def __getstate__(self) -> dict[str, Any]:
        return {"_data_aug": self._data_aug, "_pipeline": None}

    def describe(self) -> list[dict[str, Any]]:
        """The steps in order, with probability and limits, for the results' protocol block."""
        aug = self._data_aug
        return [
            *({"step": step.STEP, **step.values(aug)} for step in STEPS),
            *({"step": name, "p": p, "values": "albumentations' defaults"} for name, p in aug.extra.items()),
        ]


def item_seed(seed: int, epoch: int, index: int) -> int:
    """Seed of one item in one epoch, the same however many workers load it."""
    return derive(seed, "augment", epoch, index)


def _compose(aug: DataAug) -> Any:
    # It asks the package index for a newer version of itself whenever it is imported, unless told not to.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A  # here, because it takes a second and evaluation never augments

    # The host's isotropic resize is left out: it gets square images that have the target size already.
    steps = [step.transform(aug, A) for step in STEPS]
    return A.Compose([*steps, *(_by_name(A, name, p) for name, p in aug.extra.items())])


def _by_name(library: Any, name: str, p: float) -> Any:
    """A transform of albumentations with its own defaults."""
    kind: Any = getattr(library, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, (library.ImageOnlyTransform, library.DualTransform))):
        names = [
            known
            for known, found in vars(library).items()
            if inspect.isclass(found) and issubclass(found, library.BasicTransform)
        ]
        raise UserError(
            "data_aug.extra",
            got=repr(name),
            expected=f"the name of a transform of albumentations {library.__version__} for pictures",
            next_step=did_you_mean(name, names) or "see albumentations' list of transforms",
        )
    make: Any = kind  # isclass() leaves mypy an object
    why = "which is the user's own functions" if name == "Lambda" else _not_usable(make)
    if why is None:
        return make(p=p)
    raise UserError(
        "data_aug.extra",
        got=f"{name!r}, {why}",
        expected="a transform whose other values have defaults, and which keeps size and kind of a picture",
    )


def _not_usable(make: Any) -> str | None:
    """Tries a transform on pictures; a random size shows in one of several."""
    for _ in range(4):
        try:
            made = make(p=1.0)(image=np.zeros(SAMPLE, np.uint8))["image"]
        except Exception as error:  # its transforms raise what they like
            return f"which does nothing with p alone ({' '.join(str(error).split())[:200]})"
        if (made.shape, made.dtype) != (SAMPLE, np.uint8):
            shapes = ["x".join(map(str, shape)) for shape in (made.shape, SAMPLE)]
            return f"which makes {made.dtype} of {shapes[0]} of a picture of {shapes[1]} bytes"
    return None


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seeds Python's and numpy's global generators, which albumentations 1 draws from, and puts them back."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
