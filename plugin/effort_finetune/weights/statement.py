"""What a weights file says about how it is to be used: preprocessing, crop recipe, calibration.

No tensor tells with which normalisation a model was trained, and measured with another it is another model.
One record says it, and every file of ours carries it: a ``.pth`` in the metadata of its state dict, an
adapter in its header, a merged folder in ``preprocessor_config.json``, an ONNX file in its properties.
Whoever has more to say of a model adds a field here; its training data stand in
:mod:`~effort_finetune.weights.trained_on`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from effort_finetune.core.errors import UserError
from effort_finetune.core.escaping import visible
from effort_finetune.core.interpolation import PILLOW_NUMBER
from effort_finetune.core.strict_json import parse_json, read_json

#: Entry of a state dict's metadata, property of an ONNX file, key of ``preprocessor_config.json``.
ENTRY = "effort_finetune"
PREPROCESSOR_CONFIG = "preprocessor_config.json"
#: Longest statement that is read, in bytes of JSON: val statistics of a calibration may take 100 kB.
MAX_BYTES = 1 << 20
#: Pillow's numbers for ``resample``, as transformers writes them.
_RESAMPLE = {number: name for name, number in PILLOW_NUMBER.items()}

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Statement:
    """What a file states; ``None`` where it says nothing.

    Attributes:
        mean: Per channel, RGB, of pixels in 0..1.
        std: Likewise.
        resolution: Side of the input in pixels.
        interpolation: How pictures are brought to it, e.g. ``bicubic``.
        crop: The crop recipe: face finder, model hash, margin, size; what ``--fit`` did.
        calibration: Temperature, bias, thresholds, their val errors and the hash of all that.
    """

    mean: Rgb | None = None
    std: Rgb | None = None
    resolution: int | None = None
    interpolation: str | None = None
    crop: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns what is stated, as JSON and a restricted pickle hold it."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }

    def over(self, other: Statement) -> Statement:
        """Returns this statement, with the other's word where it has none of its own."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(other, **{key: value for key, value in own.items() if value is not None})

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) is not None for f in fields(self))


def checked(found: Any, what: str) -> Statement:
    """Reads a statement; keys of later versions are left out.

    Args:
        found: A mapping, from a file anyone may have written.
        what: How to name the file in an error.

    Raises:
        UserError: If it says something that no preprocessing can be: a deviation of 0, a mean of 0..255.
    """
    if not isinstance(found, Mapping):
        raise UserError(f"{what}: {ENTRY}", got=visible(repr(found)), expected="keys with values")
    known = {f.name: found[f.name] for f in fields(Statement) if found.get(f.name) is not None}
    for key in ("mean", "std"):
        if key in known:
            known[key] = _rgb(known[key], key, what)
    for key, kind, expected in (
        ("resolution", int, "a side in pixels"),
        ("interpolation", str, "a name"),
        *((key, Mapping, "keys with values") for key in ("crop", "calibration")),
    ):
        value = known.get(key)
        fits = value is None or (isinstance(value, kind) and not isinstance(value, bool))
        if not fits or (kind is int and value is not None and not 1 <= value <= 1 << 14):
            raise UserError(f"{what}: {key}", got=visible(repr(value)), expected=expected)
        if kind is Mapping and value is not None:
            known[key] = _plain(value, f"{what}: {key}")
    return Statement(**known)


def of_text(text: str, what: str) -> Statement:
    """Reads a statement from JSON.

    Raises:
        UserError: If it is none.
    """
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"{len(text)} characters")
        found = parse_json(text, f"{what}: {ENTRY}")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what}: {ENTRY}", got=visible(error), expected="a JSON object") from error
    return checked(found, what)


def of_preprocessor(config: Mapping[str, Any], what: str) -> Statement:
    """Reads what a CLIP folder's ``preprocessor_config.json`` says.

    Args:
        config: Its content: ours has our own entry, which says more.
        what: How to name it in an error.

    Raises:
        UserError: If it says something that no preprocessing can be.
    """
    size = config.get("crop_size", config.get("size"))
    if isinstance(size, Mapping):
        size = size.get("height", size.get("shortest_edge"))
    normalised = config.get("do_normalize", True) is not False
    general = {
        "mean": config.get("image_mean") if normalised else [0.0, 0.0, 0.0],
        "std": config.get("image_std") if normalised else [1.0, 1.0, 1.0],
        "resolution": size,
        "interpolation": _RESAMPLE.get(config.get("resample"))  # type: ignore[arg-type]
        if isinstance(config.get("resample"), int)
        else None,
    }
    return checked(config.get(ENTRY, {}), what).over(checked(general, what))


def beside(file: Path) -> Statement:
    """Returns what the ``preprocessor_config.json`` beside a model folder's weights says.

    Raises:
        UserError: If it is damaged.
    """
    path = file.with_name(PREPROCESSOR_CONFIG)
    if not path.is_file():
        return Statement()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        config = read_json(path)
        if not isinstance(config, dict):
            raise ValueError(f"a {type(config).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}", got=visible(error), expected="a JSON object") from error
    return of_preprocessor(config, str(path))


def _rgb(value: Any, key: str, what: str) -> Rgb:
    try:
        numbers = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        numbers = ()
    low = 1e-3 if key == "std" else 0.0
    high = 2.0 if key == "std" else 1.0
    if len(numbers) != 3 or not all(math.isfinite(v) and low <= v <= high for v in numbers):
        scale = "; these are of pixels in 0..255" if numbers and max(numbers) > 2 else ""
        raise UserError(
            f"{what}: {key}",
            got=visible(repr(value)) + scale,
            expected=f"three numbers, {low:g} to {high:g}, of pixels in 0..1",
        )
    return numbers[0], numbers[1], numbers[2]


def _plain(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Returns a copy made of JSON's own types alone.

    Raises:
        UserError: If it holds anything else, or too much.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(what, got=visible(error), expected="plain values") from error
    if len(text) > MAX_BYTES:
        raise UserError(what, got=f"{len(text)} bytes", expected=f"at most {MAX_BYTES}")
    plain: dict[str, Any] = json.loads(text)
    return plain
