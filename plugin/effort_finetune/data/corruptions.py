"""The corruptions by which ``evaluate --robustness`` measures a detector: one table, one entry each.

An entry is a name, what its numbers mean, five of them from mild to strong, and the function. Names in
``--robustness`` and its help, in results files and in tables all come from here. They are applied to the
square crop before it is resized to the model's input: 256 px in DeepfakeBench's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effort_finetune.core.errors import UserError, did_you_mean
from effort_finetune.core.seeding import derive
from effort_finetune.data import picture_changes as change

LEVELS = 5
ALL = "all"


@dataclass(frozen=True)
class Corruption:
    """One entry.

    Attributes:
        title: What it is and what its numbers are.
        values: One for each level, from mild to strong.
        apply: Takes ``uint8[H, W, 3]``, a value and a generator; gives ``uint8[H, W, 3]``.
        of_videos: Whether only frames of videos meet it.
    """

    title: str
    values: tuple[float, float, float, float, float]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    of_videos: bool = False


CORRUPTIONS: Mapping[str, Corruption] = {
    "jpeg": Corruption("JPEG, quality", (90, 70, 50, 30, 10), change.through_jpeg),
    "webp": Corruption("WebP, quality", (90, 70, 50, 30, 10), change.through_webp),
    "blur": Corruption("Gaussian blur, sigma in px", (0.5, 1, 1.5, 2, 3), change.blur),
    "noise": Corruption("Gaussian noise, deviation of 255", (2, 5, 10, 15, 25), change.add_noise),
    "resize": Corruption("resize and back, factor", (0.75, 0.5, 0.375, 0.25, 0.125), change.shrink),
    "crop": Corruption("part of each side", (0.95, 0.9, 0.85, 0.8, 0.7), change.crop_part),
    "brightness": Corruption("brightness, 1 +- x", (0.1, 0.2, 0.3, 0.4, 0.5), change.change_brightness),
    "contrast": Corruption("contrast, 1 +- x", (0.1, 0.25, 0.4, 0.55, 0.7), change.change_contrast),
    "saturation": Corruption("saturation, 1 +- x", (0.2, 0.4, 0.6, 0.8, 1), change.change_saturation),
    "block": Corruption("covered blocks, share of area", (0.02, 0.05, 0.1, 0.15, 0.2), change.cover_blocks),
    "video": Corruption("H.264 (x264), CRF", (23, 28, 33, 38, 43), change.through_h264, of_videos=True),
}


@dataclass(frozen=True)
class Corrupting:
    """A corruption at one level, ready for a loader's workers.

    Attributes:
        name: Its name in :data:`CORRUPTIONS`.
        level: 1 (mild) to 5 (strong).
        seed: The run's seed.
    """

    name: str
    level: int
    seed: int

    @property
    def value(self) -> float:
        """The number of this level."""
        return CORRUPTIONS[self.name].values[self.level - 1]

    def __call__(self, image: np.ndarray, item: str) -> np.ndarray:
        """Corrupts one picture; the draw depends on seed, corruption and item, so levels share it.

        Args:
            image: ``uint8[H, W, 3]``, RGB.
            item: What tells this picture from the others, e.g. its path.
        """
        rng = np.random.default_rng(derive(self.seed, "corruption", self.name, item))
        return CORRUPTIONS[self.name].apply(image, self.value, rng)

    def to_dict(self) -> dict[str, object]:
        """What the protocol of a measurement says."""
        return {"name": self.name, "level": self.level, "value": self.value}


def choose_corruptions(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the table, in its order; ``all`` stands for every one that can run here.

    Raises:
        UserError: A name is not in the table, or its codec is not installed.
    """
    unknown = [name for name in names if name != ALL and name not in CORRUPTIONS]
    if unknown:
        raise UserError(
            "--robustness",
            got=repr(unknown[0]),
            expected=f"all, or some of {', '.join(CORRUPTIONS)}",
            next_step=did_you_mean(unknown[0], CORRUPTIONS),
        )
    if "video" in names and not change.video_codec_is_there():
        raise UserError("--robustness video", got="PyAV is not installed", next_step="pip install av")
    return tuple(name for name in CORRUPTIONS if ALL in names or name in names)


def why_not(name: str, *, videos: bool) -> str | None:
    """The reason why a corruption is left out of a dataset; None where it is measured.

    Args:
        name: Its name.
        videos: Whether the dataset has frames of videos.
    """
    if CORRUPTIONS[name].of_videos:
        if not videos:
            return "no video has more than one frame: these are pictures"
        if not change.video_codec_is_there():
            return "PyAV is not installed (pip install av)"
    return None
