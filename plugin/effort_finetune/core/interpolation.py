"""How a crop is brought to the model's input size, by the names that transformers uses."""

from __future__ import annotations

from typing import Literal, get_args

Interpolation = Literal["bicubic", "bilinear", "area", "nearest", "lanczos"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
#: The flag of OpenCV for each, as text: commands that resize nothing do not wait for OpenCV.
OPENCV_FLAG: dict[Interpolation, str] = {
    "bicubic": "INTER_CUBIC",
    "bilinear": "INTER_LINEAR",
    "area": "INTER_AREA",
    "nearest": "INTER_NEAREST",
    "lanczos": "INTER_LANCZOS4",
}
#: Pillow's number for each, as ``resample`` of a CLIP folder's ``preprocessor_config.json``.
PILLOW_NUMBER: dict[str, int] = {
    "nearest": 0,
    "lanczos": 1,
    "bilinear": 2,
    "bicubic": 3,
    "area": 4,
}
