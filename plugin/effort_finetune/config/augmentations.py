"""The training augmentation, step by step: the one table of it.

A step is all there is to it: its keys in ``data_aug``, the transform, and what results say of it. Names and
order of the host's steps are DeepfakeBench's (training/dataset/abstract_dataset.py). Its arguments are not
passed as they are: under albumentations 2 they turn the JPEG compression off with no more than a warning,
fill rotated corners with black instead of a reflection, and blur with even kernels, which shift the image.
"""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any, ClassVar

from effort_finetune.config.kinds import JpegQuality, KernelRange, Range, Share
from effort_finetune.config.section import Section, setting

JPEG_PROB = 0.5  # fixed in the host, training/dataset/abstract_dataset.py
_REFLECT_101 = 4  # cv2.BORDER_REFLECT_101; settings are read without OpenCV


class Step(Section):
    """One step: its fields are keys of ``data_aug``."""

    STEP: ClassVar[str]

    def values(self) -> dict[str, Any]:
        """Returns probability and limits, as results state them."""
        raise NotImplementedError

    def transform(self, library: Any) -> Any:
        """Returns the transform.

        Args:
            library: The module ``albumentations``.
        """
        raise NotImplementedError


class HorizontalFlip(Step):
    """Mirrors left and right."""

    STEP = "horizontal flip"
    flip_prob: Share = setting(0.3, "probability of a horizontal flip")

    def values(self) -> dict[str, Any]:
        """See :meth:`Step.values`."""
        return {"p": self.flip_prob}

    def transform(self, library: Any) -> Any:
        """See :meth:`Step.transform`."""
        return library.HorizontalFlip(p=self.flip_prob)


class Rotation(Step):
    """Turns about the centre."""

    STEP = "rotation"
    rotate_prob: Share = setting(0.2, "probability of a rotation")
    rotate_limit: Range = setting((-5.0, 5.0), "rotation range in degrees")

    def values(self) -> dict[str, Any]:
        """See :meth:`Step.values`."""
        return {"p": self.rotate_prob, "degrees": list(self.rotate_limit), "border": "reflect"}

    def transform(self, library: Any) -> Any:
        """See :meth:`Step.transform`."""
        limit = tuple(self.rotate_limit)
        return library.Rotate(limit=limit, border_mode=_REFLECT_101, p=self.rotate_prob)


class GaussianBlur(Step):
    """Blurs with a kernel of odd size."""

    STEP = "Gaussian blur"
    blur_prob: Share = setting(0.2, "probability of a Gaussian blur")
    blur_limit: KernelRange = setting((3, 7), "range of the blur's kernel size in pixels")

    def values(self) -> dict[str, Any]:
        """See :meth:`Step.values`."""
        return {"p": self.blur_prob, "kernel": list(self.blur_limit)}

    def transform(self, library: Any) -> Any:
        """See :meth:`Step.transform`."""
        low, high = self.blur_limit
        # As in albumentations 1, an even draw counts for the next odd size.
        sizes = Counter(size | 1 for size in range(max(1, low), high + 1) if size | 1 <= high)
        # Sigma is what OpenCV derives from a kernel size, and what albumentations 1 leaves to it.
        blurs = [
            library.GaussianBlur(
                blur_limit=(size, size), sigma_limit=(sigma, sigma), p=weight / sizes.total()
            )
            for size, weight in sizes.items()
            for sigma in [0.3 * ((size - 1) * 0.5 - 1) + 0.8]
        ]
        return library.OneOf(blurs, p=self.blur_prob)


class Colour(Step):
    """Changes brightness and contrast, or colours."""

    STEP = "one of brightness and contrast, colour PCA, hue and saturation"
    brightness_prob: Share = setting(0.3, "probability of a brightness, contrast or colour change")
    brightness_limit: Range = setting((-0.05, 0.05), "range of the brightness factor")
    contrast_limit: Range = setting((-0.05, 0.05), "range of the contrast factor")

    def values(self) -> dict[str, Any]:
        """See :meth:`Step.values`."""
        return {
            "p": self.brightness_prob,
            "brightness": list(self.brightness_limit),
            "contrast": list(self.contrast_limit),
        }

    def transform(self, library: Any) -> Any:
        """See :meth:`Step.transform`."""
        brightness = library.RandomBrightnessContrast(
            brightness_limit=tuple(self.brightness_limit), contrast_limit=tuple(self.contrast_limit)
        )
        return library.OneOf(
            [brightness, library.FancyPCA(), library.HueSaturationValue()], p=self.brightness_prob
        )


class Jpeg(Step):
    """Compresses."""

    STEP = "JPEG"
    quality_lower: JpegQuality = setting(60, "lowest JPEG quality")
    quality_upper: JpegQuality = setting(100, "highest JPEG quality")

    def values(self) -> dict[str, Any]:
        """See :meth:`Step.values`."""
        return {"p": JPEG_PROB, "quality": [self.quality_lower, self.quality_upper]}

    def transform(self, library: Any) -> Any:
        """See :meth:`Step.transform`."""
        if "quality_range" in inspect.signature(library.ImageCompression.__init__).parameters:
            quality: dict[str, Any] = {"quality_range": (self.quality_lower, self.quality_upper)}
        else:
            quality = {"quality_lower": self.quality_lower, "quality_upper": self.quality_upper}
        return library.ImageCompression(**quality, p=JPEG_PROB)


#: Every step, in the order in which an image goes through them; a new one is a class above and a line here.
STEPS: tuple[type[Step], ...] = (
    HorizontalFlip,
    Rotation,
    GaussianBlur,
    Colour,
    Jpeg,
)
